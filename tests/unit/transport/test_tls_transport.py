"""TLS between two protocols in memory: the bytes inside, the ends of a connection, sides that do something else."""

from __future__ import annotations

import asyncio
import gc
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from haptera.testing import MemoryLink, virtual_clock
from haptera.transport import Foreign, TlsFailed, TlsTransport, load_context
from haptera.transport.limits import TLS_HANDSHAKE_SIZE_MAX, TLS_LINGER_S, TLS_OWED_MAX
from tests.support.certificates import DAY, Authority, client_files, server_files
from tests.support.virtual import loop
from tests.unit.peer.hosts import KIB, MIB, eventually

if TYPE_CHECKING:
    from haptera.transport.tls_context import TlsFiles


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("tls"))
    authority.issue("server", "localhost", "127.0.0.1")
    authority.issue("client", "worker.example")
    return authority


class Side(asyncio.Protocol):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.pieces: list[int] = []
        self.ended = False
        self.lost: list[Exception | None] = []
        self.paused: list[bool] = []
        self.keeps = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        self.pieces.append(len(data))

    def eof_received(self) -> bool:
        self.ended = True
        return self.keeps

    def pause_writing(self) -> None:
        self.paused.append(True)

    def resume_writing(self) -> None:
        self.paused.append(False)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)


def judge(first: bytes) -> Foreign:
    """Answer what begins with a letter of text."""
    return Foreign(f"it begins with {first[:1]!r}", b"no" if first[:1].isalpha() else b"")


class Pair:
    """A dialling and a listening side."""

    def __init__(self, ours: Authority, *, client: TlsFiles | None = None, server: TlsFiles | None = None) -> None:
        self.here, self.there = Side(), Side()
        self.failures: list[str] = []
        self.dialler = TlsTransport(
            lambda: self.here, load_context(client or client_files(ours.path)), judge, server_name="localhost"
        )
        self.listener = TlsTransport(
            lambda: self.there,
            load_context(server or server_files(ours.folder)),
            judge,
            on_failure=lambda: self.failures.append("failed"),
        )
        self.link: MemoryLink

    def start(self, **options: Any) -> Pair:
        self.link = MemoryLink(self.dialler, self.listener, **options)
        self.link.start()
        return self

    async def open(self, **options: Any) -> Pair:
        self.start(**options)
        await self.dialler.wait_open()
        await eventually(lambda: self.listener.session is not None)
        return self


async def failed(waiting: Any) -> TlsFailed:
    with pytest.raises(TlsFailed) as caught:
        await waiting
    return caught.value


# -- the bytes inside ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 7, 65536])
@virtual_clock
async def test_all_bytes_arrive_both_ways_however_they_are_cut(ours: Authority, chunk: int) -> None:
    pair = await Pair(ours).open(chunk=chunk)
    sent = bytes(range(256)) * (8 if chunk < 100 else 8192)
    pair.dialler.write(sent)
    pair.listener.write(sent[::-1])
    await eventually(lambda: len(pair.here.received) == len(pair.there.received) == len(sent))
    assert (pair.there.received, pair.here.received) == (sent, sent[::-1])


@virtual_clock
async def test_nothing_inside_can_be_read_on_the_way(ours: Authority) -> None:
    pair = await Pair(ours).open(record=True)
    pair.dialler.write(b"a secret that is not to be seen")
    await eventually(lambda: pair.there.received)
    assert pair.link.recording is not None
    passed = b"".join(piece.data for piece in pair.link.recording.pieces)
    assert len(passed) > 500
    assert b"secret" not in passed


@virtual_clock
async def test_what_comes_in_one_read_is_handed_on_together(ours: Authority) -> None:
    pair = await Pair(ours).open()
    pair.dialler.write(bytes(48 * KIB))  # three records, which are less than the buffer of the link
    await eventually(lambda: len(pair.there.received) == 48 * KIB)
    assert pair.there.pieces == [48 * KIB]


@virtual_clock
async def test_more_than_one_buffer_in_one_read_is_handed_on_whole(ours: Authority) -> None:
    pair = await Pair(ours).open(buffer=2 * MIB, chunk=2 * MIB)
    sent = bytes(range(256)) * 4096
    pair.dialler.write(sent)
    await eventually(lambda: len(pair.there.received) == len(sent))
    assert pair.there.received == sent


@virtual_clock
async def test_a_writer_is_paused_while_the_socket_takes_nothing_and_goes_on(ours: Authority) -> None:
    pair = await Pair(ours).open(buffer=4096)
    pair.dialler.set_write_buffer_limits(high=32 * KIB, low=16 * KIB)
    pair.listener.pause_reading()
    pair.dialler.write(bytes(256 * KIB))
    assert pair.here.paused == [True]
    assert pair.dialler.get_write_buffer_size() > 250 * KIB
    pair.listener.resume_reading()
    await eventually(lambda: len(pair.there.received) == 256 * KIB)
    assert pair.here.paused == [True, False]


@virtual_clock
async def test_both_sides_know_what_was_agreed_on_and_whom_they_speak_to(ours: Authority) -> None:
    both = {"client": client_files(ours.path, ours.folder), "server": server_files(ours.folder, client_ca=ours.path)}
    pair = await Pair(ours, **both).open()
    here, there = pair.dialler.session, pair.listener.session
    assert here is not None
    assert there is not None
    assert (here.version, here.cipher) == (there.version, there.cipher)
    assert here.version == "TLSv1.3"
    leaf = load_context(server_files(ours.folder)).certificate
    assert leaf is not None
    assert here.binding == there.binding == leaf.digest
    assert here.names == ("localhost",)
    assert there.names == ("worker.example",)


@virtual_clock
async def test_a_listener_without_an_authority_knows_no_names(ours: Authority) -> None:
    pair = await Pair(ours, client=client_files(ours.path, ours.folder)).open()
    assert pair.listener.session is not None
    assert pair.listener.session.names == ()


# -- the ends -----------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_side_that_says_that_it_sends_no_more_still_has_its_bytes_read(ours: Authority) -> None:
    pair = await Pair(ours).open()
    pair.there.keeps = True
    pair.dialler.write(b"the last")
    pair.dialler.write_eof()
    await eventually(lambda: pair.there.ended)
    assert pair.there.received == b"the last"
    pair.listener.write(b"thrown away")
    pair.listener.close()
    await eventually(lambda: pair.link.closed)
    assert pair.here.lost == pair.there.lost == [None]


@virtual_clock
async def test_a_close_ends_both_sides_behind_the_written_bytes(ours: Authority) -> None:
    pair = await Pair(ours).open()
    pair.listener.write(bytes(200 * KIB))
    pair.listener.close()
    await eventually(lambda: pair.link.closed)
    assert (len(pair.here.received), pair.here.ended) == (200 * KIB, True)
    assert pair.here.lost == pair.there.lost == [None]


@virtual_clock
async def test_a_connection_that_is_cut_is_lost_on_both_sides(ours: Authority) -> None:
    pair = await Pair(ours).open()
    pair.link.sever()
    await eventually(lambda: pair.here.lost and pair.there.lost)
    assert isinstance(pair.here.lost[0], ConnectionResetError)


@virtual_clock
async def test_damaged_bytes_end_the_connection_and_none_of_them_is_handed_on(ours: Authority) -> None:
    pair = await Pair(ours).open()
    pair.link.dialer.write(b"\x17\x03\x03\x00\x20" + bytes(32))
    await eventually(lambda: pair.there.lost)
    assert isinstance(pair.there.lost[0], TlsFailed)
    assert not pair.there.lost[0].in_handshake
    assert (pair.there.received, pair.failures) == (b"", ["failed"])
    await eventually(lambda: pair.here.lost)
    assert "it has refused TLS: bad record mac" in str(pair.here.lost[0])


@virtual_clock
async def test_a_side_that_asks_tls_for_answers_and_reads_none_is_given_up(ours: Authority) -> None:
    """It asks for other keys, say, again and again. The bytes that TLS owes it are bounded."""
    pair = await Pair(ours).open(buffer=4096)
    pair.dialler.pause_reading()
    for _ in range(TLS_OWED_MAX // 1024 + 8):
        pair.listener._out.write(bytes(1024))
        pair.listener._send_owed()
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == "it asks TLS for answers and does not read them"


@virtual_clock
async def test_answers_of_tls_that_are_read_are_not_counted(ours: Authority) -> None:
    pair = await Pair(ours).open(buffer=256 * KIB)
    for _ in range(TLS_OWED_MAX // 1024 + 8):
        pair.listener._out.write(b"\x17\x03\x03")
        pair.listener._send_owed()
    assert not pair.there.lost
    assert pair.listener._owed == 0


# -- before the handshake is done ---------------------------------------------------------------------------------


@virtual_clock
async def test_a_listening_protocol_knows_of_a_connection_before_its_handshake(ours: Authority) -> None:
    """So that it is counted as half-open, and has its time. Trap: accept blocked by idle half-open connections."""
    pair = Pair(ours)
    link = MemoryLink(Side(), pair.listener)
    link.start()
    assert pair.there.transport is pair.listener
    assert pair.listener.session is None


@virtual_clock
async def test_a_dialling_protocol_is_made_when_the_handshake_is_done(ours: Authority) -> None:
    pair = Pair(ours)
    made: list[Side] = []

    def make() -> Side:
        assert pair.dialler.session is not None
        made.append(pair.here)
        return pair.here

    pair.dialler._make = make
    await pair.open()
    assert made == [pair.here]


@virtual_clock
async def test_a_refusal_is_read_by_a_side_whose_handshake_is_not_done_yet(ours: Authority) -> None:
    pair = Pair(ours).start(latency=0.1)
    pair.listener.write(b"too many")
    pair.listener.write_eof()
    await pair.dialler.wait_open()
    await eventually(lambda: pair.here.ended)
    assert pair.here.received == b"too many"


@virtual_clock
async def test_a_close_before_the_handshake_ends_the_connection_at_once(ours: Authority) -> None:
    pair = Pair(ours).start(latency=0.1)
    pair.listener.close()
    said = await failed(pair.dialler.wait_open())
    assert (str(said), said.in_handshake) == ("the other side ended the connection in the TLS handshake", True)


@virtual_clock
async def test_an_attempt_that_is_given_up_leaves_no_connection(ours: Authority) -> None:
    pair = Pair(ours).start(latency=10.0)
    waiting = asyncio.ensure_future(pair.dialler.wait_open())
    await asyncio.sleep(1.0)
    waiting.cancel()
    await eventually(lambda: pair.link.closed)
    assert pair.here.transport is None


@virtual_clock
async def test_a_silent_dialler_that_leaves_is_nobody_s_fault(ours: Authority) -> None:
    pair = Pair(ours)
    link = MemoryLink(Side(), pair.listener)
    link.start()
    link.dialer.close()
    await eventually(lambda: pair.there.lost)
    assert (pair.there.lost, pair.failures) == ([None], [])


@virtual_clock
async def test_the_bytes_of_an_unfinished_handshake_are_bounded(ours: Authority) -> None:
    pair, stranger = Pair(ours), Side()
    link = MemoryLink(stranger, pair.listener)
    link.start()
    # The beginning of a ClientHello of 128 KiB, in records as long as they may be.
    piece = b"\x16\x03\x01\x40\x00" + b"\x01\x02\x00\x00" + bytes(0x4000 - 4)
    rest = b"\x16\x03\x01\x40\x00" + bytes(0x4000)
    link.dialer.write(piece)
    for _ in range(TLS_HANDSHAKE_SIZE_MAX // 0x4000):
        link.dialer.write(rest)
    await eventually(lambda: pair.there.lost)
    assert isinstance(pair.there.lost[0], TlsFailed)


@virtual_clock
async def test_bytes_that_come_with_the_end_of_the_handshake_are_none_of_it(ours: Authority) -> None:
    pair = Pair(ours).start(buffer=2 * MIB, chunk=2 * MIB)
    send, held = pair.link.dialer.write, bytearray()
    pair.link.dialer.write = held.extend  # type: ignore[assignment, method-assign]
    await pair.dialler.wait_open()
    pair.dialler.write(bytes(4 * TLS_HANDSHAKE_SIZE_MAX))
    send(held)
    await eventually(lambda: len(pair.there.received) == 4 * TLS_HANDSHAKE_SIZE_MAX)
    assert pair.failures == []


@pytest.mark.parametrize("first", [b"GET / HTTP/1.1\r\n", b"\xfaW", b"\x80\x2e\x01\x00\x02", b"\x15\x03\x03\x00\x02"])
@virtual_clock
async def test_a_dialler_that_speaks_something_else_is_told_apart_and_answered(ours: Authority, first: bytes) -> None:
    pair, stranger = Pair(ours), Side()
    link = MemoryLink(stranger, pair.listener)
    link.start()
    link.dialer.write(first)
    await eventually(lambda: stranger.ended)
    assert stranger.received == (b"no" if first[:1].isalpha() else b"")
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == f"it begins with {first[:1]!r}"
    assert pair.failures == ["failed"]


@virtual_clock
async def test_a_stranger_that_reads_nothing_and_stays_is_left_behind(ours: Authority) -> None:
    pair = Pair(ours)
    stranger = Side()
    stranger.keeps = True
    link = MemoryLink(stranger, pair.listener)
    link.start()
    begun = loop().time()
    link.dialer.write(b"something else")
    link.dialer.pause_reading()
    await eventually(lambda: pair.there.lost)
    assert loop().time() - begun == pytest.approx(TLS_LINGER_S, abs=0.1)


@virtual_clock
async def test_a_listener_that_speaks_something_else_is_told_apart(ours: Authority) -> None:
    pair, other = Pair(ours), Side()
    link = MemoryLink(pair.dialler, other)
    link.start()
    link.acceptor.write(b"+PONG\r\n")
    said = await failed(pair.dialler.wait_open())
    assert (str(said), said.in_handshake) == ("it begins with b'+'", True)
    assert pair.here.transport is None


# -- certificates -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority without trust."""
    authority = Authority(tmp_path_factory.mktemp("theirs"), "theirs")
    authority.issue("server", "localhost")
    authority.issue("client")
    return authority


@virtual_clock
async def test_the_certificate_of_another_authority_is_refused(ours: Authority, theirs: Authority) -> None:
    pair = Pair(ours, server=server_files(theirs.folder)).start()
    said = await failed(pair.dialler.wait_open())
    assert "its certificate is refused: self-signed certificate" in str(said) or "issuer" in str(said)
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == "it has refused TLS: unknown ca"


@pytest.mark.parametrize(
    ("begins", "ends", "wanted"), [(-9, -1, "certificate has expired"), (1, 9, "certificate is not yet valid")]
)
@virtual_clock
async def test_a_certificate_beyond_its_time_is_refused_by_both_sides(
    ours: Authority, begins: int, ends: int, wanted: str
) -> None:
    ours.issue("old", "localhost", begins=begins * DAY, ends=ends * DAY)
    pair = Pair(ours, server=server_files(ours.folder, "old")).start()
    assert str(await failed(pair.dialler.wait_open())) == f"its certificate is refused: {wanted}"
    server = server_files(ours.folder, client_ca=ours.path)
    pair = Pair(ours, client=client_files(ours.path, ours.folder, "old"), server=server).start()
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == f"its certificate is refused: {wanted}"


@pytest.mark.parametrize("identity", ["other.example", "127.0.0.2"])
@virtual_clock
async def test_a_certificate_for_another_name_is_refused(ours: Authority, identity: str) -> None:
    ours.issue("other", identity)
    pair = Pair(ours, server=server_files(ours.folder, "other")).start()
    assert "certificate is not valid for 'localhost'" in str(await failed(pair.dialler.wait_open()))


@virtual_clock
async def test_the_common_name_is_no_name(ours: Authority) -> None:
    leaf = ours.ca.issue_cert("other.example", common_name="localhost")
    (ours.folder / "common.pem").write_bytes(leaf.cert_chain_pems[0].bytes())
    (ours.folder / "common.key").write_bytes(leaf.private_key_pem.bytes())
    pair = Pair(ours, server=server_files(ours.folder, "common")).start()
    assert "certificate is not valid for 'localhost'" in str(await failed(pair.dialler.wait_open()))


@pytest.mark.parametrize("kind", ["none", "foreign", "revoked"])
@virtual_clock
async def test_a_client_without_a_good_certificate_is_refused_and_learns_why(
    ours: Authority, theirs: Authority, kind: str
) -> None:
    bad = ours.issue("bad")
    revoked = str(ours.revoke("revoked", bad))
    client, wanted, told = {
        "none": (client_files(ours.path), "peer did not return a certificate", "certificate required"),
        "foreign": (client_files(ours.path, theirs.folder), "unable to get local issuer certificate", "unknown ca"),
        "revoked": (client_files(ours.path, ours.folder, "bad"), "certificate revoked", "certificate revoked"),
    }[kind]
    server = server_files(ours.folder, client_ca=ours.path, revoked=revoked)
    pair = Pair(ours, client=client, server=server).start()
    await pair.dialler.wait_open()  # in TLS 1.3 the server's word comes behind the client's handshake
    pair.dialler.write(b"a request")
    await eventually(lambda: pair.here.lost and pair.there.lost)
    assert wanted in str(pair.there.lost[0]) or (kind == "foreign" and "self-signed" in str(pair.there.lost[0]))
    assert str(pair.here.lost[0]) == f"it has refused TLS: {told}"
    assert isinstance(pair.here.lost[0], TlsFailed)
    assert pair.here.lost[0].in_handshake, "nothing that was sent behind it was read"
    assert (pair.there.received, pair.failures) == (b"", ["failed"])


@virtual_clock
async def test_one_revoked_certificate_keeps_no_other_out(ours: Authority) -> None:
    revoked = str(ours.revoke("one", ours.issue("bad")))
    server = server_files(ours.folder, client_ca=ours.path, revoked=revoked)
    pair = await Pair(ours, client=client_files(ours.path, ours.folder), server=server).open()
    assert pair.listener.session is not None


@virtual_clock
async def test_a_list_of_revoked_certificates_that_is_too_old_keeps_all_out(ours: Authority) -> None:
    revoked = str(ours.revoke("late", due=-1 * DAY))
    server = server_files(ours.folder, client_ca=ours.path, revoked=revoked)
    pair = Pair(ours, client=client_files(ours.path, ours.folder), server=server).start()
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == "its certificate is refused: CRL has expired"


# -- versions, the protocol inside, sessions of before ------------------------------------------------------------


@virtual_clock
async def test_tls_1_2_is_taken_where_both_sides_are_asked_to(ours: Authority) -> None:
    older: dict[str, Any] = {"oldest_version": "1.2"}
    client = load_context(client_files(ours.path, **older))
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    for options, wanted in ((older, "TLSv1.2"), ({}, None)):
        pair = Pair(ours, server=server_files(ours.folder, **options))
        pair.dialler = TlsTransport(lambda pair=pair: pair.here, client, judge, server_name="localhost")  # type: ignore[misc]
        pair.start()
        if wanted is None:
            assert "protocol version" in str(await failed(pair.dialler.wait_open()))
        else:
            await pair.dialler.wait_open()
            assert pair.dialler.session is not None
            assert pair.dialler.session.version == wanted


@pytest.mark.parametrize("alpn", ["h2", "haptera/2"])
@virtual_clock
async def test_a_side_that_speaks_another_protocol_inside_is_refused_by_both(ours: Authority, alpn: str) -> None:
    pair = Pair(ours, client=client_files(ours.path, alpn=alpn)).start()
    said = await failed(pair.dialler.wait_open())
    assert str(said) == f"the other side does not choose the protocol {alpn} (ALPN)"
    await eventually(lambda: pair.there.lost)
    assert str(pair.there.lost[0]) == "the other side does not choose the protocol haptera/1 (ALPN)"


class Resuming:
    """Connects again and again with the session of before, to one listener."""

    def __init__(self, ours: Authority, version: str, **server: Any) -> None:
        self.ours = ours
        self.client = load_context(client_files(ours.path, ours.folder, oldest_version=version))
        if version == "1.2":
            self.client.context.maximum_version = ssl.TLSVersion.TLSv1_2
        self.server = load_context(server_files(ours.folder, oldest_version=version, **server))
        self.session: ssl.SSLSession | None = None

    async def connect(self) -> Pair:
        pair = Pair(self.ours)
        pair.dialler = TlsTransport(lambda: pair.here, self.client, judge, server_name="localhost")
        pair.listener = TlsTransport(lambda: pair.there, self.server, judge)
        if self.session is not None:
            pair.dialler._object.session = self.session
        pair.start()
        await pair.dialler.wait_open()
        pair.listener.write(b"something, behind which tickets would stand")
        await eventually(lambda: pair.here.received or pair.here.lost)
        self.session = pair.dialler._object.session
        pair.dialler.close()
        return pair


@virtual_clock
async def test_a_listener_offers_no_session_to_resume(ours: Authority) -> None:
    resuming = Resuming(ours, "1.3", client_ca=ours.path)
    for _ in range(2):
        pair = await resuming.connect()
        assert pair.here.received
        assert not pair.dialler._object.session_reused
        assert resuming.session is None or not resuming.session.has_ticket


@virtual_clock
async def test_a_session_of_tls_1_2_is_no_way_past_the_look_at_a_certificate(ours: Authority) -> None:
    resuming = Resuming(ours, "1.2", client_ca=ours.path)
    assert (await resuming.connect()).here.received
    pair = await resuming.connect()
    assert pair.dialler._object.session_reused, "OpenSSL offers it all the same"
    assert not pair.here.received
    assert str(pair.there.lost[0]) == "it resumes a session, which would skip the look at its certificate"
    del pair
    gc.collect()  # a connection that is gone takes its session along
    pair = await resuming.connect()
    assert pair.here.received, "the refusal has taken the session away, so that the next attempt succeeds"
    assert not pair.dialler._object.session_reused


@virtual_clock
async def test_a_context_that_was_replaced_is_for_new_connections(ours: Authority) -> None:
    pair = await Pair(ours).open()
    ours.issue("later", "localhost")
    other = await Pair(ours, server=server_files(ours.folder, "later")).open()
    pair.dialler.write(b"still here")
    await eventually(lambda: pair.there.received == b"still here")
    assert other.dialler.session is not None
    assert pair.dialler.session is not None
    assert other.dialler.session.binding != pair.dialler.session.binding
