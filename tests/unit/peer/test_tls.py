"""``hapteras://`` between peers: dialled, refused in words on both sides, raced, counted, and with files that change.

Traps: accept blocked by idle half-open connections; no time-out before the hello; one dead address or host uses up the
time of the others.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import haptera
from haptera import ConnectionLost, dial, listen
from haptera.errors import ConfigurationError
from haptera.peer import link_of, tls_of
from haptera.peer.url_options import read_listening_options, read_options
from haptera.testing import VirtualClockLoop, virtual_clock
from haptera.transport import TlsTransport, parse
from haptera.transport.limits import TLS_LOOK_S
from tests.support.certificates import Authority, dialling, listening
from tests.support.virtual import loop, network
from tests.unit.peer.hosts import MIB, Echo, eventually, other_side, served
from tests.unit.peer.raw import hello

if TYPE_CHECKING:
    from pathlib import Path

ANY_PORT = "hapteras://127.0.0.1:0"


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost", "127.0.0.1")
    authority.issue("client", "worker.example")
    return authority


def url_of(ours: Authority, **more: str) -> str:
    return ANY_PORT + listening(ours.folder, **more)


def lines(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.getMessage() == event]


# -- connections --------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_call_crosses_tls_and_both_sides_know_it(ours: Authority) -> None:
    async with served(url_of(ours), Echo()) as server:
        assert server.url.startswith("hapteras://127.0.0.1:")
        assert "?" not in server.url
        async with dial(server.url + dialling(ours.path)) as peer:
            assert await peer.call("echo", "one", b"hello") == b"hello"
            here, there = link_of(peer), link_of(other_side(server))
            assert here.tls is not None
            assert there.tls is not None
            assert len(here.binding) == 32
            assert here.binding == there.binding == here.tls.binding != bytes(32)


@virtual_clock
async def test_a_connection_without_tls_is_bound_to_zeros(ours: Authority) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server, dial(server.url) as peer:
        await peer.ready()
        assert (link_of(peer).tls, link_of(peer).binding) == (None, bytes(32))


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_large_answers_and_an_orderly_end_cross_real_sockets(ours: Authority, factory: Any) -> None:
    async def run() -> None:
        payload = bytes(range(256)) * (3 * MIB // 256)
        async with (
            served(url_of(ours, client_ca=str(ours.path)), Echo()) as server,
            dial(server.url + dialling(ours.path, ours.folder)) as peer,
        ):
            answers = await asyncio.gather(
                *(peer.call("echo", "one", payload[number:], timeout=60.0) for number in range(4))
            )
            assert answers == [payload[number:] for number in range(4)]
            last = asyncio.ensure_future(peer.call("echo", "one", payload, timeout=60.0))
            await asyncio.sleep(0)
            await asyncio.gather(server.drain(60.0), last)
            assert last.result() == payload

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(run())


@pytest.mark.parametrize("listener", ["", "&compression=zstd"])
@pytest.mark.parametrize("dialler", ["", "&compression=zstd"])
@virtual_clock
async def test_no_payload_is_compressed_inside_tls_unless_both_sides_ask(
    ours: Authority, listener: str, dialler: str
) -> None:
    """Secrets and chosen bytes never together (spec/protocol.md, section 4.1). The host is one beyond this machine."""
    ours.issue("server", "db.example")
    network().name("db.example", "127.0.0.1")
    async with served(url_of(ours) + listener, Echo()) as server:
        url = f"hapteras://db.example:{server.url.rpartition(':')[2]}{dialling(ours.path)}{dialler}"
        async with dial(url) as peer:
            await peer.ready()
            assert ("zstd" in peer.capabilities) is bool(listener and dialler)


# -- refusals in words --------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_plain_dialler_at_a_tls_address_is_told_so_and_so_is_the_log(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(url_of(ours), Echo()) as server:
        with pytest.raises(ConnectionLost, match=r"1008.*this address takes TLS alone: dial hapteras://") as caught:
            async with dial(server.url.replace("hapteras", "haptera")) as peer:
                await peer.call("echo", "one", b"")
        assert caught.value.outcome == "not_applied"
        await eventually(lambda: server.tls_failures)
    (line,) = lines(caplog, "tls_failed")
    assert line["reason"] == "it speaks Haptera without TLS"
    assert line["remote"].startswith("127.0.0.1:")


@virtual_clock
async def test_a_tls_dialler_at_a_plain_address_is_told_so_and_so_is_the_log(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    async with served("haptera://127.0.0.1:0", Echo()) as server:
        with pytest.raises(ConnectionLost, match="it speaks Haptera without TLS: haptera:// and not hapteras://"):
            await dial(server.url.replace("haptera", "hapteras") + dialling(ours.path))
    (line,) = lines(caplog, "connection_failed")
    assert line["reason"] == "the bytes are TLS, and this side of the connection does not speak it"


@virtual_clock
async def test_a_server_that_is_not_trusted_is_named_with_the_reason(ours: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path, "theirs")
    async with served(url_of(ours), Echo()) as server:
        with pytest.raises(
            ConnectionLost, match=r"cannot connect to 127.0.0.1:\d+: its certificate is refused"
        ) as caught:
            await dial(server.url + dialling(theirs.path))
        assert caught.value.outcome == "not_applied"


@virtual_clock
async def test_calls_of_a_client_without_a_certificate_are_not_applied(ours: Authority) -> None:
    """The server's word comes behind the first flight, of which it has then read nothing."""
    network().delay(0.1)
    async with (
        served(url_of(ours, client_ca=str(ours.path)), Echo()) as server,
        dial(server.url + dialling(ours.path)) as peer,
    ):
        with pytest.raises(ConnectionLost, match="it has refused TLS: certificate required") as caught:
            await peer.call("echo", "one", b"")
        assert caught.value.outcome == "not_applied"


@virtual_clock
async def test_the_lines_that_strangers_cause_are_few(ours: Authority, caplog: pytest.LogCaptureFixture) -> None:
    async with served(url_of(ours), Echo()) as server:
        for _ in range(30):
            with pytest.raises(ConnectionLost):
                async with dial(server.url.replace("hapteras", "haptera")) as peer:
                    await peer.ready()
        await eventually(lambda: server.tls_failures == 30)
    assert len(lines(caplog, "tls_failed")) <= 20
    assert lines(caplog, "lines_left_out")


@virtual_clock
async def test_a_side_that_connects_and_leaves_is_not_warned_of(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with served(url_of(ours), Echo()) as server:
        (place,) = parse(server.url).hosts
        transport, _ = await loop().create_connection(asyncio.Protocol, *place)
        await eventually(lambda: server.half_open)
        transport.close()
        await eventually(lambda: not server.half_open)
    assert not lines(caplog, "tls_failed")


# -- half-open connections ----------------------------------------------------------------------------------------


@virtual_clock
async def test_a_silent_connection_has_the_time_of_a_handshake_and_keeps_no_other_out(ours: Authority) -> None:
    async with served(url_of(ours), Echo(), max_half_open=4) as server:
        (place,) = parse(server.url).hosts
        for _ in range(20):
            await loop().create_connection(asyncio.Protocol, *place)
        await eventually(lambda: server.refused == 16)
        assert server.half_open == 4
        begun = loop().time()
        async with dial(server.url + dialling(ours.path)) as peer:
            assert await peer.call("echo", "one", b"in") == b"in"
            await eventually(lambda: not server.half_open)
        assert loop().time() - begun < 8.0


@virtual_clock
async def test_silent_connections_drop_none_that_waits_for_the_answer_to_its_first_flight(ours: Authority) -> None:
    async with served(url_of(ours), Echo(), max_half_open=4) as server:
        (place,) = parse(server.url).hosts
        reader, writer = await asyncio.open_connection(*place)
        context = ssl.create_default_context(cafile=str(ours.path))
        context.set_alpn_protocols(["haptera/1"])
        into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(into, out, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            tls.do_handshake()
        writer.write(out.read())
        into.write(await reader.read(65536))
        for _ in range(20):
            await loop().create_connection(asyncio.Protocol, *place)
        await eventually(lambda: server.refused == 17)
        tls.do_handshake()
        tls.write(hello())
        writer.write(out.read())
        await eventually(lambda: server.half_open == 3)
        assert [peer.established for peer in server.peers].count(True) == 1
        writer.close()


@virtual_clock
async def test_one_connection_too_many_reads_why_inside_tls(ours: Authority) -> None:
    async with (
        served(url_of(ours), Echo(), max_connections=1) as server,
        dial(server.url + dialling(ours.path)) as peer,
    ):
        await peer.ready()
        async with dial(server.url + dialling(ours.path)) as other:
            with pytest.raises(ConnectionLost, match="1013"):
                await other.ready()


# -- dialling -----------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_host_whose_certificate_is_refused_costs_no_time(ours: Authority, tmp_path: Path) -> None:
    theirs = Authority(tmp_path / ".", "theirs")
    theirs.issue("stranger", "127.0.0.1")
    async with (
        served(ANY_PORT + listening(tmp_path, "stranger"), Echo()) as bad,
        served(url_of(ours), Echo()) as good,
    ):
        hosts = ",".join(server.url.removeprefix("hapteras://") for server in (bad, good))
        begun = loop().time()
        async with dial(f"hapteras://{hosts}{dialling(ours.path)}") as peer:
            assert await peer.call("echo", "one", b"in") == b"in"
        assert loop().time() - begun < 0.2


@virtual_clock
async def test_a_host_that_is_silent_in_the_handshake_is_joined_by_the_next(ours: Authority) -> None:
    silent = network().bind(("10.0.0.1", 1), asyncio.Protocol)
    async with served(url_of(ours), Echo()) as good:
        begun = loop().time()
        async with dial(f"hapteras://10.0.0.1:1,{good.url.removeprefix('hapteras://')}{dialling(ours.path)}") as peer:
            assert await peer.call("echo", "one", b"in") == b"in"
            assert loop().time() - begun == pytest.approx(0.25, abs=0.1)
            await eventually(lambda: len(network().links) == 1)  # the loser is closed
    silent.close()


@virtual_clock
async def test_a_host_that_stays_silent_in_the_handshake_is_given_up_even_without_a_timeout(ours: Authority) -> None:
    silent = network().bind(("10.0.0.1", 1), asyncio.Protocol)
    with pytest.raises(ConnectionLost, match="it took too long"):
        await dial(f"hapteras://10.0.0.1:1{dialling(ours.path)}", timeout=None)
    assert loop().time() == pytest.approx(5.0, abs=0.1)
    silent.close()


@virtual_clock
async def test_a_name_that_no_certificate_can_have_is_refused(ours: Authority) -> None:
    network().name("a" * 64, "127.0.0.1")
    async with served(url_of(ours), Echo()) as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(ConnectionLost, match="no certificate can have its name"):
            await dial(f"hapteras://{'a' * 64}:{port}{dialling(ours.path)}")


@virtual_clock
async def test_the_name_of_the_url_is_verified_and_not_that_of_the_address(ours: Authority) -> None:
    network().name("db.example", "127.0.0.1")
    async with served(url_of(ours), Echo()) as server:
        port = server.url.rpartition(":")[2]
        with pytest.raises(ConnectionLost, match=r"certificate is not valid for 'db\.example'"):
            await dial(f"hapteras://db.example:{port}{dialling(ours.path)}")


# -- files that change --------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_new_certificate_is_for_new_connections_and_the_open_ones_go_on(ours: Authority) -> None:
    async with served(url_of(ours), Echo()) as server, dial(server.url + dialling(ours.path)) as before:
        await before.ready()
        ours.issue("server", "localhost", "127.0.0.1")
        await asyncio.sleep(TLS_LOOK_S + 1)
        async with dial(server.url + dialling(ours.path)) as after:
            assert await after.call("echo", "one", b"in") == await before.call("echo", "one", b"in") == b"in"
            assert link_of(after).binding != link_of(before).binding


@virtual_clock
async def test_a_client_that_is_revoked_is_kept_out_from_the_next_look_on(ours: Authority) -> None:
    leaf = ours.issue("client", "worker.example")
    revoked = ours.revoke("all")
    async with served(url_of(ours, client_ca=str(ours.path), crl=str(revoked)), Echo()) as server:
        async with dial(server.url + dialling(ours.path, ours.folder)) as peer:
            await peer.ready()
        ours.revoke("all", leaf)
        assert server.reload_certificates()
        async with dial(server.url + dialling(ours.path, ours.folder)) as peer:
            with pytest.raises(ConnectionLost, match="certificate revoked"):
                await peer.ready()


@virtual_clock
async def test_a_bad_file_changes_nothing(ours: Authority) -> None:
    async with served(url_of(ours), Echo()) as server:
        (ours.folder / "server.key").write_text("nothing")
        assert not server.reload_certificates()
        async with dial(server.url + dialling(ours.path)) as peer:
            assert await peer.call("echo", "one", b"in") == b"in"


@virtual_clock
async def test_a_look_that_fails_is_followed_by_the_next(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(url_of(ours), Echo()) as server, dial(server.url + dialling(ours.path)) as before:
        await before.ready()
        keeper = tls_of(server)
        assert keeper is not None
        faults: list[Any] = []
        loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        with monkeypatch.context() as patched:
            patched.setattr(keeper, "look", lambda now_s: 1 / 0)
            await asyncio.sleep(2 * TLS_LOOK_S + 1)
        assert [type(fault) for fault in faults] == [ZeroDivisionError] * 2
        ours.issue("server", "localhost", "127.0.0.1")
        await asyncio.sleep(TLS_LOOK_S)
        assert keeper.reloads == 1


@virtual_clock
async def test_a_listener_that_is_closed_looks_no_longer(ours: Authority) -> None:
    async with served(url_of(ours), Echo()):
        assert loop().timers
    await asyncio.sleep(1)
    assert not loop().timers


# -- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hapteras://h", "TLS needs cert=FILE and key=FILE"),
        ("hapteras://h?cert=/c", "TLS needs cert=FILE and key=FILE"),
        ("hapteras://h?cert=/c&key=/k&ca=/a", "ca is an option of the dialling side"),
        ("hapteras://h?cert=/c&key=/k&crl=/r", "crl lists revoked certificates of client_ca"),
        ("hapteras://h?cert=/c&key=/k&tls_min=1.1", "tls_min is 1.2 or 1.3, not '1.1'"),
        ("hapteras://h?cert=/c&key=/k&client_ca=", "client_ca has no value"),
        ("hapteras://h?cert=/c&key=/k&signed=psk&key_file=/x", "never signed inside TLS"),
        ("hapteras://h?cert=/c&key=/k&verify=no", "'verify' is not known"),
        ("haptera://h?cert=/c&key=/k", "cert is an option of hapteras://"),
        ("haptera+unix:///s?cert=/c&key=/k", "cert is an option of hapteras://"),
    ],
)
def test_an_option_that_means_nothing_to_a_listener_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read_listening_options(parse(url))


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("hapteras://h?cert=/c", "cert and key belong together"),
        ("hapteras://h?key=/c", "cert and key belong together"),
        ("hapteras://h?client_ca=/c", "client_ca is an option of the listening side"),
        ("hapteras://h?crl=/c", "crl is an option of the listening side"),
        ("hapteras://h?verify=none", "'verify' is not known"),
        ("hapteras://h?insecure=1", "'insecure' is not known"),
        ("hapteras://h?signed=no", "never signed inside TLS"),
        ("haptera://h?ca=/c", "ca is an option of hapteras://"),
    ],
)
def test_an_option_that_means_nothing_to_a_dialling_side_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        read_options(parse(url))


async def test_a_key_beside_a_url_of_tls_is_refused(ours: Authority) -> None:
    key = bytes(32)
    with pytest.raises(ConfigurationError, match="never signed inside TLS"):
        await listen(url_of(ours), signing_key=key)
    with pytest.raises(ConfigurationError, match="never signed inside TLS"):
        await dial(f"hapteras://127.0.0.1:1{dialling(ours.path)}", signing_key=key)


async def test_files_that_cannot_be_used_are_refused_before_anything_is_listened_on(ours: Authority) -> None:
    (ours.folder / "server.pem").unlink()
    with pytest.raises(ConfigurationError, match=r"server\.pem cannot be used"):
        await listen(url_of(ours))


def test_the_transport_of_a_link_is_one_of_tls_on_every_loop(ours: Authority) -> None:
    async def run() -> None:
        async with served(url_of(ours), Echo()) as server, dial(server.url + dialling(ours.path)) as peer:
            await peer.ready()
            assert isinstance(link_of(peer).transport, TlsTransport)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop, VirtualClockLoop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(run())


@virtual_clock
async def test_a_connection_that_was_cut_is_made_again(ours: Authority) -> None:
    async with served(url_of(ours), Echo()) as server:
        async with dial(server.url + dialling(ours.path)) as peer:
            await peer.ready()
            network().sever()
            with pytest.raises(haptera.ConnectionLost):
                await peer.call("echo", "one", b"")
        async with dial(server.url + dialling(ours.path)) as peer:
            assert await peer.call("echo", "one", b"in") == b"in"
