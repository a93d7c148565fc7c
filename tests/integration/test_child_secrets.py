"""The processes that a node starts get the keys by a pipe: no other user of the machine sees them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from haptera.storage import DataDirectory, MasterKey, OsFileSystem, open_keyring
from tests.integration.commands import run
from tests.support.planted import MASTER_KEY
from tests.support.processes import children_of
from tests.unit.node.process import serving

MASTER = MasterKey.of(MASTER_KEY)

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="it looks into /proc")


def shown(pid: int) -> bytes:
    """What /proc shows of a process to its user; a process that has ended has nothing."""
    found = b""
    for name in ("cmdline", "environ"):
        try:
            found += Path(f"/proc/{pid}/{name}").read_bytes()
        except OSError:
            return b""
    return found


def options(tmp_path: Path, origin: str) -> tuple[list[str], dict[str, str]]:
    """The options and the variables of a node whose master key comes from there."""
    file = tmp_path / "key"
    file.write_bytes(MASTER.format())
    file.chmod(0o600)
    if origin == "file":
        return ["--master-key-file", str(file)], {}
    if origin == "command":
        return ["--master-key-command", f"cat {file}"], {}
    return [], {"HAPTERA_MASTER_KEY": MASTER.secret.hex()} if origin == "environment" else {}


@pytest.mark.parametrize("origin", ["generated", "file", "environment", "command"])
def test_arguments_and_environment_of_the_second_process_show_no_key(tmp_path: Path, origin: str) -> None:
    flags, environ = options(tmp_path, origin)
    data = tmp_path / "data"
    with serving(data, *flags, environ=environ) as node:
        url = node.ready().url
        seen: list[bytes] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                seen.extend(map(shown, children_of(node.process.pid)))

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            for number in range(2):
                assert run("set", "key", str(number), "--url", url).code == 0
                assert run("snapshot", "--url", url).code == 0
        finally:
            done.set()
            watcher.join()
        own = shown(node.process.pid)
        node.signal()
        assert node.end() == 0
    whole = [text for text in seen if b"haptera.node.snapshots.process" in text]
    assert whole, "the watcher has met no second process"
    master = MASTER if origin != "generated" else MasterKey.parse((data / "master.key").read_bytes())
    assert master is not None
    directory = DataDirectory.open(OsFileSystem(), str(data), create=False)
    try:
        secrets = [master.secret, *(key.secret for key in open_keyring(directory, master).keys)]
    finally:
        directory.close()
    for text in seen:
        if text == own:
            continue  # of a child between fork and exec, which is the node still
        for secret in secrets:
            assert secret not in text
            assert secret.hex().encode() not in text.lower()
