"""`haptera lock` with real commands: what they find, what they get, and what it ends with."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from haptera import connect
from haptera.testing import node_in_thread
from tests.integration.commands import run
from tests.support.planted import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("quick_passwords")

#: Seconds that a process of a test may take, on a machine that has other work.
PATIENCE_S = 30.0


@pytest.fixture
def url() -> Iterator[str]:
    with node_in_thread(storage="memory") as url:
        yield url


@pytest.fixture
def haptera(url: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HAPTERA_URL", url)
    return run


def eventually(condition: Callable[[], object]) -> None:
    by = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < by
        time.sleep(0.01)


def started(url: str, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "haptera", "--url", url, "lock", *arguments]
    return subprocess.Popen(command, text=True, stderr=subprocess.PIPE, **options)


def test_the_command_finds_the_token_and_the_store(haptera: Any, url: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    script = f'echo "$HAPTERA_LOCK_TOKEN $HAPTERA_URL" >{said}; exit 42'
    ended = haptera("lock", "jobs", "--", "sh", "-c", script)
    assert (ended.code, ended.out, ended.err) == (42, b"", "")
    token, found = said.read_text().split()
    assert found == url
    assert int(token) == 2
    assert haptera("count", "--prefix", "jobs").text == "0\n", "the lock is given up"


@pytest.mark.parametrize("way", ["file", "environment", "url"])
def test_the_command_logs_in_as_the_user_of_the_lock(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, file, seen = tmp_path / "said", tmp_path / "ann.password", tmp_path / "seen"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    with node_in_thread(listen="tcp", storage="memory", no_auth=False, admin_password=PASSWORD) as url:
        named = url.replace("haptera://", "haptera://admin@") if way == "url" else str(url)
        options = ["--url", named, *([] if way == "url" else ["--user", "admin"])]
        if way == "file":
            options += ["--password-file", str(file)]
        else:
            monkeypatch.setenv("HAPTERA_PASSWORD", PASSWORD)
        script = f'tr "\\0" " " </proc/$$/cmdline >{seen}; {shlex.quote(sys.executable)} -m haptera whoami >{said}'
        ended = run(*options, "lock", "jobs", "--", "sh", "-c", script)
    assert (ended.code, ended.err) == (0, "")
    assert said.read_text().startswith("user: admin\n")
    assert PASSWORD not in seen.read_text()


def test_the_url_of_an_option_is_the_one_that_the_command_finds(url: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    ended = run("--url", url, "lock", "jobs", "--", "sh", "-c", f'echo "$HAPTERA_URL" >{said}')
    assert (ended.code, said.read_text()) == (0, f"{url}\n")


@pytest.mark.parametrize(
    "change",
    [
        ["set", "k", "v"],
        ["del", "k"],
        ["del", "k", "other"],
        ["incr", "n"],
        ["rename", "k", "other"],
        ["clear", "--prefix", "k", "--yes"],
        ["expire", "k", "60"],
        ["persist", "k"],
        ["txn", "-"],
        ["import", "rows.tsv"],
        ["revert", "k", "--to-version", "1"],
    ],
)
def test_a_change_with_a_token_is_made_only_while_the_lock_is_held(
    haptera: Any, url: str, change: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rows.tsv").write_text("k\tv\n")
    haptera("set", "k", "v")
    operation = json.dumps({"then": ["set", "k", "v"]}).encode()
    refused = haptera(*change, "--fence", "1", stdin=operation)
    assert refused.code == 1
    assert "FENCED (4011)" in refused.err
    lease = asyncio.run(_granted(url))
    token = haptera("set", "place", "me", "--lease", str(lease)).text.strip()
    assert haptera(*change, "--fence", token, stdin=operation).code == 0


def test_a_key_ends_with_its_lease(haptera: Any, url: str) -> None:
    lease = asyncio.run(_granted(url))
    assert haptera("set", "k", "v", "--lease", str(lease)).code == 0
    assert haptera("set", "k", "v", "--lease", "99").code == 1
    assert haptera("set", "k", "v", "--lease", str(lease), "--ttl", "5").code == 2
    asyncio.run(_revoked(url, lease))
    assert haptera("get", "k").code == 1


async def _granted(url: str) -> int:
    async with connect(url) as db:
        return await db.grant_lease(60.0)


async def _revoked(url: str, lease: int) -> None:
    async with connect(url) as db:
        await db.revoke_lease(lease)


def test_who_waits_too_long_runs_nothing(haptera: Any, url: str, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    holder = started(url, "jobs", "--", "sleep", "60")
    try:
        eventually(lambda: haptera("count", "--prefix", "jobs").text == "1\n")
        for within in ("0", "0.05"):
            ended = haptera("lock", "jobs", "--within", within, "--", "touch", str(ran))
            assert (ended.code, ended.err) == (7, "haptera: jobs is held by others\n")
        told = haptera("--json", "lock", "jobs", "--within", "0", "--", "touch", str(ran)).err
        assert json.loads(told) == {"error": {"message": "jobs is held by others"}, "exit_code": 7}
        assert not ran.exists()
    finally:
        holder.terminate()
        _, said = holder.communicate(timeout=PATIENCE_S)
    assert (holder.returncode, said) == (128 + signal.SIGTERM, ""), "the signal was passed on"
    assert haptera("count", "--prefix", "jobs").text == "0\n"


def test_a_signal_while_it_waits_gives_the_place_up(haptera: Any, url: str) -> None:
    holder = started(url, "jobs", "--", "sleep", "60")
    eventually(lambda: haptera("count", "--prefix", "jobs").text == "1\n")
    waiter = started(url, "jobs", "--", "sleep", "60")
    eventually(lambda: haptera("count", "--prefix", "jobs").text == "2\n")
    waiter.send_signal(signal.SIGHUP)
    assert waiter.wait(PATIENCE_S) == 128 + signal.SIGHUP
    assert haptera("count", "--prefix", "jobs").text == "1\n"
    holder.terminate()
    holder.communicate(timeout=PATIENCE_S)
    waiter.communicate()


def test_the_group_of_a_command_whose_lock_is_lost_is_ended(haptera: Any, tmp_path: Path) -> None:
    """Its shell takes no notice of SIGTERM, and has a child that does not either."""
    started_, told = tmp_path / "started", tmp_path / "told"
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    script = (
        f"trap 'echo told >{told}' TERM; {shlex.quote(sys.executable)} -c '{child}' & echo $! >{started_}; wait; wait"
    )

    def lose() -> None:
        eventually(lambda: started_.exists() and started_.read_text())
        subprocess.run([sys.executable, "-m", "haptera", "clear", "--prefix", "jobs", "--yes"], check=True)

    loss = threading.Thread(target=lose)
    loss.start()
    ended = haptera("lock", "jobs", "--grace", "0.5", "--", "sh", "-c", script)
    loss.join()
    assert ended.code == 8
    assert ended.err == "haptera: the lock was lost: its place in the line was deleted\n"
    assert told.read_text() == "told\n"
    eventually(lambda: not _runs(int(started_.read_text())))


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def test_a_command_that_is_not_there_is_told_as_by_a_shell(haptera: Any, tmp_path: Path) -> None:
    missing = haptera("lock", "jobs", "--", "/no/such/command")
    assert (missing.code, missing.err) == (127, "haptera: cannot run /no/such/command: No such file or directory\n")
    plain = tmp_path / "plain"
    plain.write_text("")
    assert haptera("lock", "jobs", "--", str(plain)).code == 126
    assert haptera("lock", "jobs").code == 2
    assert haptera("count", "--prefix", "jobs").text == "0\n"


def test_a_store_that_cannot_be_reached_runs_nothing(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    ended = run("--url", f"haptera+unix://{tmp_path}/none.sock", "lock", "jobs", "--", "touch", str(ran))
    assert ended.code == 3
    assert not ran.exists()


def test_the_command_has_the_terminal_and_its_interrupt(url: str) -> None:
    """It reads a line of the terminal, is interrupted by Ctrl-C alone, and leaves the terminal as it was."""
    # A shell looks at signals between its commands: one that comes just before a long sleep would wait for all of it.
    script = 'read line; echo "got $line"; trap "echo stays; exit 5" INT; echo ready; while :; do sleep 0.1; done'
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(
            sys.executable, [sys.executable, "-m", "haptera", "--url", url, "lock", "jobs", "--", "sh", "-c", script]
        )
    said = b""

    def read_until(text: bytes) -> None:
        nonlocal said
        while text not in said:
            said += os.read(terminal, 1024)

    os.write(terminal, b"hello\n")
    read_until(b"got hello")
    read_until(b"ready")
    os.write(terminal, b"\x03")
    read_until(b"stays")
    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 5


def test_leases_are_granted_listed_renewed_and_ended(haptera: Any) -> None:
    assert haptera("lease", "grant", "60").text == "1\n"
    assert json.loads(haptera("lease", "grant", "5.5", "--json").text) == {"lease": 2, "ttl": 5.5}
    haptera("set", "k", "v", "--lease", "1")
    listed = [line.split("\t") for line in haptera("lease", "list").text.splitlines()]
    assert [(row[0], row[1], row[3]) for row in listed] == [("1", "60", "1"), ("2", "5.5", "0")]
    assert all(0 < float(row[2]) <= float(row[1]) for row in listed)
    assert len(haptera("lease", "list", "--limit", "1").text.splitlines()) == 1
    assert json.loads(haptera("lease", "list", "--limit", "1", "--json").text)["keys"] == 1
    assert haptera("lease", "renew", "1").text == "1\t60\n"
    renewed = haptera("lease", "renew", "1", "9")
    assert (renewed.code, renewed.text) == (1, "1\t60\n9\tended\n")
    assert (haptera("lease", "revoke", "1").text, haptera("get", "k").code) == ("1\n", 1)
    again = haptera("lease", "revoke", "1")
    assert again.code == 1
    assert "LEASE_NOT_FOUND (4010)" in again.err
    assert haptera("lease", "grant", "0.5").code == 2
    assert haptera("lease", "list", terminal=True).code == 0


def test_a_lease_is_kept_until_the_command_is_told_to_stop(haptera: Any, url: str) -> None:
    command = [sys.executable, "-m", "haptera", "--url", url, "lease", "keep", "1"]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as keeping:
        assert keeping.stdout is not None
        lease = keeping.stdout.readline().strip()
        haptera("set", "k", "v", "--lease", lease)
        keeping.send_signal(signal.SIGTERM)
        assert keeping.wait(PATIENCE_S) == 0
    assert haptera("get", "k").code == 1


def test_a_lease_that_is_kept_and_ends_is_told(haptera: Any, url: str) -> None:
    async def end() -> None:
        async with connect(url) as db:
            while not [lease async for lease in db.leases()]:
                await asyncio.sleep(0.01)
            await db.revoke_lease(1)

    ending = threading.Thread(target=lambda: asyncio.run(end()))
    ending.start()
    ended = haptera("lease", "keep", "1")
    ending.join()
    assert ended.code == 8
    assert ended.err == "haptera: the lease 1 was lost: the node has ended the lease\n"
