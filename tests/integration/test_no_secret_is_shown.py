"""A node under work shows no secret: not in its log, its audit log, its output, its status, or its arguments."""

from __future__ import annotations

import json
import signal
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from haptera.client.calls import administration
from haptera.security import new_verifier
from haptera.storage import MasterKey
from tests.integration.commands import Ended, run
from tests.support.planted import MASTER_KEY, forms
from tests.support.processes import children_of
from tests.unit.node.process import Serving, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from haptera.security import Verifier

ADMIN = "Quartz-pelican-first-41"
USER = "Violet-harbour-user-52"
CHANGED = "Copper-lantern-changed-63"
WRONG = "Marble-tundra-wrong-74"
VALUE = "Saffron-value-that-is-stored-85"
SIGNING = b"Cobalt-signing-key-of-two-sides-96"
MASTER = MasterKey.of(MASTER_KEY)

pytestmark = pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="it looks into /proc")


def shown(secrets: dict[str, bytes], text: bytes) -> list[str]:
    """The names of the secrets that a text shows."""
    return [name for name, secret in secrets.items() if any(form in text for form in forms(secret))]


class Watched:
    """A node whose output and arguments are kept."""

    def __init__(self, node: Serving, data: Path) -> None:
        self.node = node.ready()
        self.data = data
        self.cmdlines: set[bytes] = set()
        self.log: list[str] = [json.dumps(node.events)]
        self._done = threading.Event()
        self._threads = [threading.Thread(target=each) for each in (self._read, self._watch)]
        for thread in self._threads:
            thread.start()

    def _read(self) -> None:
        assert self.node.process.stderr is not None
        self.log.extend(self.node.process.stderr)

    def _watch(self) -> None:
        pid = self.node.process.pid
        while not self._done.wait(0.005):  # a process of a snapshot lives much longer
            for each in (pid, *children_of(pid)):
                try:
                    self.cmdlines.add(Path(f"/proc/{each}/cmdline").read_bytes())
                except OSError:
                    continue  # it has ended

    def crash(self) -> bytes:
        """End it as by a fault of the interpreter. Returns its standard output."""
        self.node.signal(signal.SIGABRT)
        assert self.node.process.wait() == -signal.SIGABRT
        self.close()
        assert self.node.process.stdout is not None
        return self.node.process.stdout.read().encode()

    def close(self) -> None:
        self._done.set()
        if self.node.process.poll() is None:
            self.node.process.kill()
        for thread in self._threads:
            thread.join()

    def files(self) -> dict[str, bytes]:
        """The files that an operator reads: the audit log and node.toml."""
        found = {str(each): each.read_bytes() for each in (self.data / "audit").rglob("*") if each.is_file()}
        return {**found, "node.toml": (self.data / "node.toml").read_bytes()}


@contextmanager
def watched(tmp_path: Path, *options: str) -> Iterator[Watched]:
    master = kept(tmp_path, "master", MASTER.format())
    data = tmp_path / "data"
    flags = ["--log-level", "debug", "--audit-data", "all", "--master-key-file", master, *options]
    with serving(data, *flags, environ={"PYTHONFAULTHANDLER": "1"}, auth=True) as node:
        watched = Watched(node, data)
        try:
            yield watched
        finally:
            watched.close()


def kept(tmp_path: Path, name: str, content: bytes | str) -> str:
    """The path of a secret's file."""
    file = tmp_path / f"{name}.secret"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(0o600)
    return str(file)


def ok(ended: Ended) -> str:
    assert ended.code == 0, ended.err
    return ended.text


def work(tmp_path: Path, url: str, *as_admin: str) -> dict[str, bytes]:
    """Use users, tokens and keys, well and badly. Returns the secrets that come up."""
    at = ("--url", url)
    admin = (*at, *as_admin)
    fresh = ("--new-password-file", "-")
    ok(run("role", "add", "app", *admin))
    ok(run("grant", "add", "app", "read,write,scan,delete", "seen/*", *admin))
    ok(run("user", "add", "ann", "--role", "app", *fresh, *admin, stdin=USER.encode()))
    _, token = ok(run("token", "create", "ci", "--role", "app", *admin)).rstrip("\n").split("\t")
    if as_admin:
        ann = (*at, "--user", "ann", "--password-file", kept(tmp_path, "ann", USER))
        ok(run("set", "seen/ann", VALUE, *ann))
        assert run("set", "unseen", VALUE, *ann).code == 4
        assert run("get", "seen/ann", *at, "--user", "ann", "--password-file", kept(tmp_path, "no", WRONG)).code == 4
        ci = (*at, "--user", "token:ci", "--password-file", kept(tmp_path, "ci", token))
        assert ok(run("get", "seen/ann", *ci)).startswith(VALUE)
        ok(run("passwd", *fresh, *ann, stdin=CHANGED.encode()))
    else:
        ok(run("passwd", "ann", *fresh, *admin, stdin=CHANGED.encode()))
    ok(run("set", "seen/root", VALUE, *admin))
    assert VALUE in ok(run("scan", *admin))
    ok(run("user", "list", *admin))
    ok(run("token", "revoke", "ci", *admin))
    ok(run("user", "disable", "ann", *admin))
    ok(run("snapshot", *admin))
    return {"token": token.encode()}


@pytest.fixture
def verifiers(monkeypatch: pytest.MonkeyPatch) -> list[Verifier]:
    """The verifiers that commands make."""
    made: list[Verifier] = []

    def recorded(*arguments: Any) -> Verifier:
        made.append(new_verifier(*arguments))
        return made[-1]

    monkeypatch.setattr(administration, "new_verifier", recorded)
    return made


def test_the_search_finds_a_secret_in_each_form() -> None:
    for form in forms(MASTER.secret):
        assert shown({"master": MASTER.secret, "value": VALUE.encode()}, b'{"a": "' + form + b'"}') == ["master"]


@pytest.mark.parametrize(("origin", "path"), [("file", "tcp"), ("generated", "local")])
def test_a_node_under_work_shows_no_secret(
    tmp_path: Path, origin: str, path: str, verifiers: list[Verifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HAPTERA_URL", "HAPTERA_USER", "HAPTERA_PASSWORD", "HAPTERA_NEW_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    options = ["--admin-password-file", kept(tmp_path, "admin", ADMIN)] if origin == "file" else []
    if path == "local":
        options += ["--signing-key-file", kept(tmp_path, "signing", SIGNING)]
    with watched(tmp_path, *options) as node:
        password, printed = ADMIN.encode(), b""
        if origin == "generated":
            assert node.node.process.stdout is not None
            printed = node.node.process.stdout.readline().encode()
            password = printed.split()[-1]
        local = f"haptera+unix://{node.data}/haptera.sock"
        tcp = node.node.url
        if path == "tcp":
            found = work(tmp_path, tcp, "--user", "admin", "--password-file", kept(tmp_path, "root", password))
        else:
            found = work(tmp_path, local)
            signed = f"{tcp}?signed=psk&key_file={tmp_path / 'signing.secret'}"
            assert ok(run("get", "seen/root", "--url", signed)).startswith(VALUE)
        secrets = {
            "admin": password,
            "user": USER.encode(),
            "changed": CHANGED.encode(),
            "wrong": WRONG.encode(),
            "value": VALUE.encode(),
            "signing key": SIGNING,
            "master key": MASTER.secret,
            **found,
            **{f"stored key {number}": each.stored_key for number, each in enumerate(verifiers)},
            **{f"server key {number}": each.server_key for number, each in enumerate(verifiers)},
        }
        assert len(verifiers) >= 2
        reports = {name: ok(run(name, "--json", "--url", local)) for name in ("status", "metrics")}
        reports["doctor"] = run("doctor", "--json", "--url", local).text
        reports = {name: text for name, text in reports.items() if text}
        assert len(reports) == 3
        printed += node.crash()
        log = "".join(node.log).encode()
        files = node.files()
    assert printed.count(password) == (1 if origin == "generated" else 0)
    printed = printed.replace(password, b"")
    # The places are the ones that tell: else nothing would be found in them for another reason.
    assert b"listening" in log
    assert b"Fatal Python error: Aborted" in log
    assert any(b"seen/root" in each and b"ann" in each for each in files.values())
    assert any(b"haptera.node.snapshots.process" in each for each in node.cmdlines)
    places = {"log": log, "stdout": printed, "arguments": b"\n".join(node.cmdlines), **files}
    places.update({name: text.encode() for name, text in reports.items()})
    assert {name: leaked for name, text in places.items() if (leaked := shown(secrets, text))} == {}
