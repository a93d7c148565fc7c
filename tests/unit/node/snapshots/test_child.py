"""The second process as its node sees it: whatever it does, the node gets a snapshot or an error, and no process stays
behind (haptera.node.snapshots.child).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from haptera.node.snapshots import child
from haptera.node.snapshots.child import SnapshotProcess, environment_of_child
from haptera.node.snapshots.errors import SnapshotNotMade
from haptera.node.snapshots.messages import Made, Order, encode
from haptera.storage import DataKey, Keyring, LogPoint

if TYPE_CHECKING:
    from pathlib import Path

SECRET = bytes(range(32))
KEYRING = Keyring([DataKey.of(SECRET)])
POINT = LogPoint(index=10, term=1, time_ms=1000, tag=bytes(16), next_segment=3)
MADE = Made(
    index=10, revision=10, time_ms=1000, next_segment=3, keys=1, size_bytes=100, seconds=0.1, memory_bytes=1 << 20
)


def process(path: Path, program: str, silence_s: float = 30.0) -> SnapshotProcess:
    """A second process that runs `program` in the place of the real one."""
    return SnapshotProcess(str(path), command=[sys.executable, "-S", "-c", program], silence_s=silence_s)


def says(message: object) -> str:
    return f"print({encode(message).decode()!r}, flush=True)\n"


def failure_of(run: SnapshotProcess) -> str:
    with pytest.raises(SnapshotNotMade) as caught:
        run.make(POINT, KEYRING, 1000)
    assert run.pid is None
    return caught.value.reason


def test_the_last_message_is_the_result(tmp_path: Path) -> None:
    assert process(tmp_path, says({"event": "progress"}) + says(MADE)).make(POINT, KEYRING, 1000) == MADE


def test_the_order_is_on_standard_input_and_the_pipe_stays_open(tmp_path: Path) -> None:
    program = f"""
import os, select, sys
open({str(tmp_path / "order")!r}, "wb").write(sys.stdin.buffer.readline())
assert not select.select([0], [], [], 0.1)[0], "the pipe is open and has nothing more"
""" + says(MADE)
    process(tmp_path, program).make(POINT, KEYRING, 1000)
    import msgspec

    order = msgspec.json.decode((tmp_path / "order").read_bytes(), type=Order)
    assert order == Order(os.getpid(), [SECRET.hex()], POINT, 1000)


def test_no_key_is_in_an_argument_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HAPTERA_MASTER_KEY", "ab" * 32)
    program = f"""
seen = open("/proc/self/cmdline", "rb").read() + open("/proc/self/environ", "rb").read()
open({str(tmp_path / "seen")!r}, "wb").write(seen)
""" + says(MADE)
    process(tmp_path, program).make(POINT, KEYRING, 1000)
    seen = (tmp_path / "seen").read_bytes()
    assert b"PATH=" in seen
    assert SECRET.hex().encode() not in seen
    assert b"ab" * 32 not in seen
    assert b"HAPTERA_" not in seen


def test_the_environment_has_the_modules_of_this_process() -> None:
    environment = environment_of_child({"HAPTERA_DATA_DIR": "x", "LANG": "C", "PYTHONPATH": "other"})
    assert environment["LANG"] == "C"
    assert environment["PYTHONPATH"].split(os.pathsep) == [path for path in sys.path if path]
    assert "HAPTERA_DATA_DIR" not in environment


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("raise SystemExit(3)", "ended with 3"),
        ("pass", "ended with 0"),
        ("print('hello')", "is another program"),
        ("print('{}')", "is another program"),
        (
            r"import os; os.write(1, b'{\"event\": \"failed\", \"kind\": \"\xff\", \"message\": \"\"}\n')",
            "is another program",
        ),
        ("print('{\"event\": \"progress\", \"more\": ' + '[' * 100_000 + '}')", "is another program"),
        (f"print('x' * {2 << 20})", "writes lines of more than"),
        (f"print('x' * {2 << 20}, end='')", "writes lines of more than"),
        (says({"event": "failed", "kind": "E", "message": "it is damaged"}), "it is damaged"),
        (says({"event": "progress"}) + "raise SystemExit(1)", "ended with 1"),
    ],
)
def test_an_end_without_a_snapshot_is_an_error_that_says_why(tmp_path: Path, program: str, reason: str) -> None:
    assert reason in failure_of(process(tmp_path, program))


def test_standard_error_is_kept_as_far_as_it_is_short(tmp_path: Path) -> None:
    run = process(tmp_path, "import sys; sys.stderr.write('x' * 100_000 + 'the end')")
    failure_of(run)
    assert run.said.endswith("the end")
    assert len(run.said) == child.STDERR_SIZE_MAX


def test_damage_that_the_process_found_is_named(tmp_path: Path) -> None:
    found = {"event": "failed", "kind": "CorruptionError", "message": "m", "file": "f", "offset": 7}
    with pytest.raises(SnapshotNotMade) as caught:
        process(tmp_path, says(found)).make(POINT, KEYRING, 1000)
    assert caught.value.found is not None
    assert (caught.value.found.file, caught.value.found.offset) == ("f", 7)


def gone(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return False
    return True


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    program = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(1000)"
    assert "no progress for 1 seconds" in failure_of(process(tmp_path, program, silence_s=1.0))
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_process_that_goes_on_is_left_to_work(tmp_path: Path) -> None:
    """Its silences count, and not its whole time."""
    program = "import time\n" + (says({"event": "progress"}) + "time.sleep(0.4)\n") * 5 + says(MADE)
    assert process(tmp_path, program, silence_s=1.5).make(POINT, KEYRING, 1000) == MADE


def test_a_process_that_closes_its_pipes_and_stays_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "END_WAIT_S", 0.5)
    program = "import os, time; [os.close(each) for each in (0, 1, 2)]; time.sleep(1000)"
    assert "ended by signal 9" in failure_of(process(tmp_path, program))


def test_a_process_is_ended_from_another_thread(tmp_path: Path) -> None:
    run = process(tmp_path, "import time; time.sleep(1000)")
    reasons: list[str] = []
    thread = threading.Thread(target=lambda: reasons.append(failure_of(run)))
    thread.start()
    while run.pid is None:
        time.sleep(0.01)
    pid = run.pid
    run.stop()
    thread.join()
    assert reasons == ["the node stops"]
    assert gone(pid)


def test_a_process_that_is_stopped_before_it_starts_does_nothing(tmp_path: Path) -> None:
    run = process(tmp_path, f"open({str(tmp_path / 'made')!r}, 'w')")
    run.stop()
    assert failure_of(run) == "the node stops"


def test_a_program_that_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = SnapshotProcess(str(tmp_path), command=[str(tmp_path / "none")])
    assert "cannot be started" in failure_of(run)
    monkeypatch.setattr(sys, "executable", "")
    assert "has no Python interpreter" in failure_of(SnapshotProcess(str(tmp_path)))
    monkeypatch.setattr(sys, "executable", "/bin/true")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "has no Python interpreter" in failure_of(SnapshotProcess(str(tmp_path)))


def test_the_process_goes_behind_the_node_before_it_imports_what_it_works_with() -> None:
    program = """
import sys
from haptera.node.snapshots import process
def keep_pace():
    print(*sorted(name for name in sys.modules if name.startswith(("haptera", "cryptography", "msgspec"))))
    sys.exit()
process.go_behind = lambda: print("behind")
process.keep_pace = keep_pace
process.main("x")
"""
    seen = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert seen == [
        "behind",
        "haptera",
        "haptera.lazy",
        "haptera.node",
        "haptera.node.snapshots",
        "haptera.node.snapshots.pacing",
        "haptera.node.snapshots.priority",
        "haptera.node.snapshots.process",
        "haptera.version",
    ]


def test_the_end_of_the_node_is_the_end_of_the_process(tmp_path: Path) -> None:
    """A node that is killed leaves no second process that goes on writing in its directory."""
    pid_file = tmp_path / "pid"
    real = f"""
import os, sys, time
from haptera.node.snapshots import ordered_snapshot, process
ordered_snapshot._make = lambda *_: (open({str(pid_file)!r}, "w").write(str(os.getpid()) + "\\n"), time.sleep(1000))
process.main("x")
"""
    node = f"""
import sys
from haptera.node.snapshots.child import SnapshotProcess
from haptera.storage import DataKey, Keyring, LogPoint
run = SnapshotProcess("x", command=[sys.executable, "-c", {real!r}])
point = LogPoint(index=10, term=1, time_ms=1000, tag=bytes(16), next_segment=3)
run.make(point, Keyring([DataKey.of(bytes(32))]), 1000)
"""
    parent = subprocess.Popen([sys.executable, "-c", node])
    while not pid_file.exists() or not pid_file.read_text().endswith("\n"):
        time.sleep(0.01)
    pid = int(pid_file.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 30
    while not _ended(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _ended(pid)


def _ended(pid: int) -> bool:
    """Gone, or a zombie that nobody has waited for yet."""
    with suppress(FileNotFoundError, ProcessLookupError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"
    return True
