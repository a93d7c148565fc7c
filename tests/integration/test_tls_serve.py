"""A node with TLS as a process: signals, certificates that are replaced, and what `openssl s_client` finds out.

The probes are those of a scanner: versions, ciphers, ALPN, names, renegotiation, sessions to resume, client
certificates.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import shlex
import shutil
import signal
import subprocess
import sys
import termios
from typing import TYPE_CHECKING, Any

import pytest

from haptera.peer import dial, link_of
from haptera.transport import parse
from tests.integration.commands import run
from tests.support.certificates import Authority, dialling, listening
from tests.unit.node.process import serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.node.process import Serving

SECONDS_MAX = 60
OPENSSL = shutil.which("openssl")
probes = pytest.mark.skipif(OPENSSL is None, reason="there is no openssl")


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", "127.0.0.1")
    authority.issue("client", "worker.example")
    return authority


def url_of(ours: Authority, **more: str) -> str:
    return "hapteras://127.0.0.1:0" + listening(ours.folder, **more)


def binding(url: str) -> bytes:
    """The digest of the certificate that a node has now."""

    async def ask() -> bytes:
        async with dial(url) as peer:
            await peer.ready()
            return link_of(peer).binding

    return asyncio.run(ask())


def until(node: Serving, event: str) -> dict[str, Any]:
    """The next event of a name in the log of a node."""
    while (found := node.read_event()) is not None:
        if found["event"] == event:
            return found
    raise AssertionError(f"it ended with {node.process.wait()}: {node.names()}")


def tls_url(node: Serving) -> str:
    """Where a node listens with TLS; `serving` gives it a plain address first."""
    while not node.url.startswith("hapteras"):
        node.ready()
    return node.url


# -- signals ------------------------------------------------------------------------------------------------------


def test_a_hang_up_has_a_node_read_its_certificates_again_and_a_bad_one_changes_nothing(ours: Authority) -> None:
    with serving(ours.folder / "d", "--listen", url_of(ours)) as node:
        url = tls_url(node) + dialling(ours.path)
        before = binding(url)
        ours.issue("server", "localhost", "127.0.0.1")
        node.signal(signal.SIGHUP)
        until(node, "tls_files_loaded")
        after = binding(url)
        assert after != before
        key = (ours.folder / "server.key").read_bytes()
        (ours.folder / "server.key").write_text("nothing")
        node.signal(signal.SIGHUP)
        assert "server.key cannot be used" in until(node, "tls_files_refused")["reason"]
        assert binding(url) == after
        (ours.folder / "server.key").write_bytes(key)
        node.signal()
        assert node.end() == 0
        assert key.decode() not in str(node.events)


def test_a_hang_up_has_a_node_read_its_external_users_again(tmp_path: Path) -> None:
    file = tmp_path / "users.toml"
    file.write_text("[uids]\n")
    with serving(tmp_path / "d", "--external-users-file", str(file), auth=True) as node:
        node.ready()
        node.signal(signal.SIGHUP)
        assert until(node, "external_users_loaded")["file"] == str(file)
        file.write_text("[uids")
        node.signal(signal.SIGHUP)
        assert "it is not a TOML file" in until(node, "external_users_refused")["reason"]
        node.signal()
        assert node.end() == 0


def test_a_hang_up_stops_a_node_without_tls(tmp_path: Path) -> None:
    with serving(tmp_path / "d") as node:
        node.ready()
        node.signal(signal.SIGHUP)
        assert node.end() == 0


def test_under_nohup_a_hang_up_reads_certificates_and_never_stops(ours: Authority) -> None:
    ignoring: Any = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with serving(ours.folder / "d", "--listen", url_of(ours)) as node:
            tls_url(node)
            node.signal(signal.SIGHUP)
            until(node, "tls_files_loaded")
            node.signal()
            assert node.end() == 0
    finally:
        signal.signal(signal.SIGHUP, ignoring)


def test_a_terminal_that_closes_stops_a_node_with_tls(ours: Authority) -> None:
    master, slave = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    command = [sys.executable, "-m", "haptera", "serve", "--data-dir", str(ours.folder / "d"), "--log-format", "json"]
    process = subprocess.Popen(
        [*command, "--listen", url_of(ours)],
        stdin=slave,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=take_terminal,  # noqa: PLW1509 - this process has no other thread
    )
    try:
        assert process.stderr is not None
        os.close(slave)
        for line in process.stderr:
            if '"event":"listening"' in line:
                break
        process.send_signal(signal.SIGHUP)  # its terminal is there
        for line in process.stderr:
            if '"event":"tls_files_loaded"' in line:
                break
        os.close(master)
        assert process.wait(SECONDS_MAX) == 0
        assert '"event":"stopped"' in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


# -- the command line ---------------------------------------------------------------------------------------------


def test_commands_use_a_node_with_the_certificates_of_dev_certs(tmp_path: Path, short_path: Path) -> None:
    made = run("dev-certs", str(tmp_path / "c"))
    assert made.code == 0
    paths = {name: tmp_path / "c" / name for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")}
    server = f"cert={paths['server.pem']}&key={paths['server.key']}&client_ca={paths['ca.pem']}"
    client = f"ca={paths['ca.pem']}&cert={paths['client.pem']}&key={paths['client.key']}"
    with serving(short_path / "d", "--listen", f"hapteras://127.0.0.1:0?{server}", auth=True) as node:
        url = tls_url(node)
        missing = run("get", "k", "--url", f"{url}?{client}")
        assert missing.code == 4
        assert f"AUTHENTICATION_REQUIRED (2001): authentication is required; the server is {url}" in missing.err
        step = "haptera user add urn:haptera:client:dev --no-password --role "
        assert f"`{step}ROLE`" in missing.err
        assert f"  {step}admin\n" in made.err
        local = f"haptera+unix://{short_path}/d/haptera.sock"
        assert run(*shlex.split(f"{step}admin")[1:], "--url", local).code == 0
        assert run("set", "k", "v", "--url", f"{url}?{client}").code == 0
        assert run("get", "k", "--url", f"{url}?{client}").text == "v\n"
        status = run("status", "--url", f"{url}?{client}").text
        assert "tls: true\n" in status
        assert re.search(r"^certificate_ends_at: \d{13}$", status, re.MULTILINE)
        refused = run("set", "k", "w", "--url", f"{url}?ca={paths['ca.pem']}")
        assert (refused.code, refused.out) == (3, b"")
        assert "certificate required" in refused.err
        stranger = run("get", "k", "--url", url)
        assert stranger.code == 3
        assert "its certificate is refused" in stranger.err
        plain = run("get", "k", "--url", url.replace("hapteras", "haptera"))
        assert "dial hapteras://" in plain.err
        node.signal()
        assert node.end() == 0


# -- probes -------------------------------------------------------------------------------------------------------


class Probe:
    """Runs `openssl s_client` against a node."""

    def __init__(self, url: str, ours: Authority) -> None:
        ((host, port),) = parse(url).hosts
        self.place = f"{host}:{port}"
        self.ca = str(ours.path)

    def __call__(self, *options: str, typed: str = "Q\n", alpn: str = "haptera/1") -> str:
        assert OPENSSL is not None
        named = ["-alpn", alpn] if alpn else []
        ended = subprocess.run(
            [OPENSSL, "s_client", "-connect", self.place, "-CAfile", self.ca, *named, *options],
            input=typed,
            text=True,
            errors="replace",  # of a frame
            capture_output=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return ended.stdout + ended.stderr


@pytest.fixture
def probe(ours: Authority) -> Iterator[Probe]:
    with serving(ours.folder / "d", "--listen", url_of(ours)) as node:
        yield Probe(tls_url(node), ours)
        node.signal()
        assert node.end() == 0


@probes
def test_a_scanner_finds_tls_1_3_and_nothing_older(probe: Probe) -> None:
    found = probe("-tls1_3")
    assert "Protocol  : TLSv1.3" in found or "New, TLSv1.3" in found
    assert "ALPN protocol: haptera/1" in found
    assert "Verify return code: 0 (ok)" in found
    assert "Compression: NONE" in found
    for older in ("-tls1_2", "-tls1_1", "-tls1"):
        # The client's own policy refuses the oldest ones, unless it is told that they are wanted.
        assert "Cipher is (NONE)" in probe(older, "-cipher", "ALL:@SECLEVEL=0")


@probes
def test_a_scanner_finds_no_weak_cipher_and_no_renegotiation_in_tls_1_2(ours: Authority) -> None:
    with serving(ours.folder / "d", "--listen", url_of(ours, tls_min="1.2")) as node:
        probe = Probe(tls_url(node), ours)
        for weak in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "ALL:!ECDHE", "NULL:@SECLEVEL=0"):
            assert "Cipher is (NONE)" in probe("-tls1_2", "-cipher", weak), weak
        for good in ("ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"):
            assert f"Cipher is {good}" in probe("-tls1_2", "-cipher", good)
        renegotiated = probe("-tls1_2", typed="R\n")
        assert "RENEGOTIATING" in renegotiated
        assert "no renegotiation" in renegotiated
        assert "TLS session ticket:" not in probe("-tls1_2")
        node.signal()
        assert node.end() == 0


@probes
@pytest.mark.parametrize("alpn", ["h2", "http/1.1", ""])
def test_a_scanner_that_names_another_protocol_is_left(probe: Probe, alpn: str) -> None:
    found = probe("-tls1_3", alpn=alpn)
    assert "ALPN protocol: haptera/1" not in found
    assert "No ALPN negotiated" in found


@probes
def test_any_name_of_a_server_gets_the_one_certificate(probe: Probe) -> None:
    for name in (["-servername", "other.example"], ["-noservername"]):
        assert "ALPN protocol: haptera/1" in probe("-tls1_3", *name)


@probes
def test_no_session_is_offered_to_be_resumed(probe: Probe, tmp_path: Path) -> None:
    found = probe("-tls1_3", "-sess_out", str(tmp_path / "session"))
    assert "New Session Ticket arrived" not in found
    assert "Reused" not in probe("-tls1_3", "-reconnect")


@probes
@pytest.mark.parametrize("name", [None, "client", "bad"])
def test_a_client_is_taken_by_its_certificate_alone(ours: Authority, name: str | None) -> None:
    revoked = str(ours.revoke("all", ours.issue("bad")))
    url = url_of(ours, client_ca=str(ours.path), crl=revoked)
    with serving(ours.folder / "d", "--listen", url) as node:
        probe = Probe(tls_url(node), ours)
        own = [] if name is None else ["-cert", f"{ours.folder}/{name}.pem", "-key", f"{ours.folder}/{name}.key"]
        # TLS 1.3 tells a client that is refused with the first bytes that it reads.
        found = probe("-tls1_3", "-ign_eof", *own, typed="no frame\n")
        wanted = {None: "certificate required", "bad": "certificate revoked"}.get(name)
        assert (wanted in found) if wanted else ("alert" not in found)
        node.signal()
        assert node.end() == 0
        reasons = [event["reason"] for event in node.events if event["event"] == "tls_failed"]
        assert len(reasons) == (0 if name == "client" else 1)
        assert not any("PRIVATE" in str(event) for event in node.events)


@probes
def test_a_request_for_other_keys_is_answered_and_the_connection_goes_on(probe: Probe) -> None:
    found = probe("-tls1_3", typed="K")
    assert "KEYUPDATE" in found
    assert "alert" not in found
