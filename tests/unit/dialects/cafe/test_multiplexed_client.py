"""The client of CAFE: its calls, against a node and against servers that break the protocol."""

from __future__ import annotations

import asyncio
import gc
import os
import struct
import subprocess
import sys
import warnings
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera.cafe import MultiplexedClient
from haptera.dialects.cafe import multiplexed_connection
from haptera.errors import (
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidKey,
    PermissionDenied,
    ProtocolViolation,
    SignatureMismatch,
    ValueTooLarge,
    WrongLoop,
)
from haptera.testing import virtual_clock
from tests.support.certificates import Authority
from tests.support.forked import in_child
from tests.unit.dialects.cafe.raw_client import cafe_node
from tools.cafe_vectors import (
    BIND,
    COMPRESSED,
    ERR,
    GET,
    NOTFOUND,
    OK,
    SERVER_NONCE,
    SET,
    SHARED_KEY,
    VALUE_MAX,
    bound_key,
    encrypted,
    message,
    version,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


class Server(asyncio.Protocol):
    """A server that answers as the test wants. It answers BIND rightly.

    ``answers`` is given a request's opcode and id, its bytes, and the key for the tags; an empty answer closes.
    """

    def __init__(self, answers: Callable[[int, int, bytes, bytes], list[bytes]], *, binds: bool = True) -> None:
        self._answers = answers
        self._binds = binds
        self._key = SHARED_KEY
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while len(self._received) >= 48:
            key_len, value_len = struct.unpack_from(">HI", self._received, 10)
            whole = 48 + key_len + value_len
            if len(self._received) < whole:
                return
            asked, self._received = self._received[:whole], self._received[whole:]
            (request_id,) = struct.unpack_from(">I", asked, 4)
            if asked[3] == BIND and self._binds:
                self._transport.write(message(OK, request_id, b"", SERVER_NONCE, key=self._key))
                self._key = bound_key(self._key, asked[48:], SERVER_NONCE)
            else:
                for answer in self._answers(asked[3], request_id, asked, self._key):
                    self._transport.write(answer)
                    if not answer:
                        self._transport.close()


@asynccontextmanager
async def server_that(answers: Any, *, binds: bool = True) -> AsyncIterator[str]:
    """A listener of such servers."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: Server(answers, binds=binds), "127.0.0.1", 0)
    try:
        yield f"cafe://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    finally:
        listener.close()


async def test_every_call_in_every_way_of_sending(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        for options in (
            {},
            {"bind": False},
            {"encrypt": True},
            {"compress": True},
            {"encrypt": True, "compress": True},
            {"bind": False, "encrypt": True, "compress": True},
        ):
            async with MultiplexedClient.connect(url, key=SHARED_KEY, **options) as client:
                assert await client.get("a") is None
                first = await client.set("a", "text")
                assert await client.get(b"a") == b"text"
                long = bytes(100_000)
                assert await client.set("a", long) == first + 1
                assert await client.get("a") == long
                assert await client.delete("a") == first + 2
                assert await client.delete("a") is None


async def test_a_thousand_calls_at_once_have_each_their_own_answer(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        versions = await asyncio.gather(*(client.set(f"k{each}", f"{each}") for each in range(1000)))
        assert sorted(versions) == list(range(1, 1001))
        calls = [client.set(f"n{each}", "x") if each % 10 == 0 else client.get(f"k{each}") for each in range(1100)]
        found = await asyncio.gather(*calls)
        for each, value in enumerate(found):
            if each % 10 == 0:
                assert isinstance(value, int)
            else:
                assert value == (b"%d" % each if each < 1000 else None)


async def test_more_calls_than_may_be_in_flight_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiplexed_connection, "IN_FLIGHT_MAX", 7)
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        await asyncio.gather(*(client.set(f"k{each}", f"{each}") for each in range(100)))
        assert await asyncio.gather(*(client.get(f"k{each}") for each in range(100))) == [
            b"%d" % each for each in range(100)
        ]


async def test_refusals_of_the_node_are_its_errors(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "no_auth": False,
        "admin_password": "correct horse battery",
        "signing_user": "no-such-user",
    }
    async with cafe_node(tmp_path, **options) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        with pytest.raises(PermissionDenied) as caught:
            await client.set("a", "x")
        assert caught.value.outcome == "not_applied"


async def test_what_no_node_takes_is_refused_here(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        for key in ("", "a\0", b"\xff", "x" * 4097):
            with pytest.raises(InvalidKey):
                await client.get(key)
        with pytest.raises(ValueTooLarge):
            await client.set("a", bytes(VALUE_MAX + 1))
        with pytest.raises(ValueError, match="timeout"):
            await client.get("a", timeout=0)


async def test_another_key_is_noticed_on_both_sides(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        with pytest.raises(ConnectionLost) as caught:
            await MultiplexedClient.connect(url, key=bytes(32))
        assert isinstance(caught.value, SignatureMismatch)
        assert caught.value.outcome == "not_applied"
        assert "shared keys differ" in str(caught.value)
        async with MultiplexedClient.connect(url, key=bytes(32), bind=False) as client:
            with pytest.raises(SignatureMismatch) as late:
                await client.set("a", "x")
            assert late.value.outcome == "unknown"


def ok(_: int, request_id: int, __: bytes, key: bytes) -> list[bytes]:
    return [message(OK, request_id, b"", version(7), key=key)]


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (lambda o, i, m, k: [message(OK, i + 7, b"", version(7), key=k)], "no request waits"),
        (lambda o, i, m, k: [message(OK, i, b"", b"short", key=k)], "form"),
        (lambda o, i, m, k: [message(NOTFOUND, i, key=k)], "form"),
        (lambda o, i, m, k: [message(OK, i, b"k", version(7), key=k)], "no answer has"),
        (lambda o, i, m, k: [message(OK, i, b"", version(7), key=k, flags=4)], "no answer has"),
        (lambda o, i, m, k: [message(OK, i, b"", version(7), key=k, reserved=1)], "no answer has"),
        (lambda o, i, m, k: [m], "no answer"),
        (lambda o, i, m, k: [message(ERR, i, b"", b"x", key=k)], "no code"),
        (lambda o, i, m, k: [message(OK, i, b"", version(7))], "shared keys differ"),
        (lambda o, i, m, k: [message(ERR, i, b"", b"\x03\xf0refused", key=k)], "refused"),
        (lambda o, i, m, k: [message(ERR, 0, b"", b"\x03\xf6enough", key=k)], "enough"),
        (lambda o, i, m, k: [b"HTTP/1.1 400 Bad Request\r\n"], "not CAFE"),
        (lambda o, i, m, k: [b""], "ended by the other side"),
    ],
)
async def test_an_answer_that_breaks_the_protocol_ends_the_connection(answers: Any, reason: str) -> None:
    async with server_that(answers) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        calls = await asyncio.gather(client.set("a", "x"), client.set("b", "x"), return_exceptions=True)
        for error in calls:
            assert isinstance(error, ConnectionLost)
            assert reason in str(error)
            assert error.outcome == "unknown"


async def test_an_answer_that_comes_twice_ends_the_connection() -> None:
    async with (
        server_that(lambda o, i, m, k: ok(o, i, m, k) * 2) as url,
        MultiplexedClient.connect(url, key=SHARED_KEY) as client,
    ):
        assert await client.set("a", "x") == 7
        connection = client._connection
        assert connection is not None
        await connection.closed
        assert isinstance(connection.lost, ProtocolViolation)


async def test_a_plain_answer_to_an_encrypted_request_ends_the_connection() -> None:
    async with server_that(ok) as url, MultiplexedClient.connect(url, key=SHARED_KEY, encrypt=True) as client:
        with pytest.raises(ProtocolViolation, match="not encrypted"):
            await client.set("a", "x")


async def test_a_bomb_in_an_answer_ends_the_connection() -> None:
    def bomb(_: int, request_id: int, __: bytes, key: bytes) -> list[bytes]:
        frame = b"\x28\xb5\x2f\xfd\xa0" + (1 << 30).to_bytes(4, "little") + b"\x4b\0\0x"
        return [message(OK, request_id, b"", frame, key=key, flags=COMPRESSED)]

    async with server_that(bomb) as url, MultiplexedClient.connect(url, key=SHARED_KEY, compress=True) as client:
        with pytest.raises(ConnectionLost, match="too large"):
            await client.get("a")


async def test_a_recording_of_the_server_is_no_answer_to_a_later_bind() -> None:
    recorded = message(OK, 1, b"", SERVER_NONCE)

    def replay(opcode: int, request_id: int, asked: bytes, _: bytes) -> list[bytes]:
        if opcode == BIND:
            return [recorded]
        return [message(OK, request_id, b"", version(7), key=bound_key(SHARED_KEY, bytes(16), SERVER_NONCE))]

    async with server_that(replay, binds=False) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        with pytest.raises(SignatureMismatch):
            await client.set("a", "x")


@virtual_clock
async def test_a_call_that_is_not_answered_ends_in_time_and_its_late_answer_is_thrown_away() -> None:
    late: list[bytes] = []

    def answers(opcode: int, request_id: int, asked: bytes, key: bytes) -> list[bytes]:
        late.append(message(OK, request_id, b"", version(7), key=key))
        return late if opcode == SET and len(late) > 2 else []

    async with server_that(answers) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        with pytest.raises(DeadlineExceeded) as caught:
            await client.set("a", "x", timeout=2.0)
        assert loop.time() - begun == pytest.approx(2.0, abs=0.1)
        assert caught.value.outcome == "unknown"
        with pytest.raises(DeadlineExceeded) as caught:
            await client.get("a")
        assert loop.time() - begun == pytest.approx(7.0, abs=0.1)
        assert caught.value.outcome == "not_applied"
        assert await client.set("a", "x", timeout=None) == 7


@virtual_clock
async def test_a_server_that_never_answers_bind_is_given_up() -> None:
    async with server_that(lambda *_: [], binds=False) as url:
        with pytest.raises((ConnectionLost, DeadlineExceeded)) as caught:
            await MultiplexedClient.connect(url, key=SHARED_KEY, timeout=3.0)
        assert caught.value.outcome == "not_applied"


async def test_a_lost_connection_is_dialled_again_by_the_next_call(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        await client.set("a", "x")
        first = client._connection
        assert first is not None
        first._transport.abort()  # type: ignore[union-attr]
        await first.closed
        assert await asyncio.gather(*(client.get("a") for _ in range(3))) == [b"x"] * 3
        assert client._connection is not first


async def test_a_client_whose_ids_are_spent_dials_again_and_keeps_the_calls_in_flight(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        first = client._connection
        assert first is not None
        first._last_id = 2**32 - 3
        assert await asyncio.gather(*(client.set(f"k{each}", "x") for each in range(10))) == list(range(1, 11))
        assert client._connection is not first
        assert not client._retired
        assert first.closed.done()


async def test_a_closed_client_takes_no_call(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await MultiplexedClient.connect(url, key=SHARED_KEY)
        await client.aclose()
        await client.aclose()
        with pytest.raises(ConnectionLost) as caught:
            await client.get("a")
        assert caught.value.outcome == "not_applied"


@virtual_clock
async def test_calls_in_flight_fail_when_the_client_is_closed(tmp_path: Path) -> None:
    async with cafe_node(tmp_path, write_delay=5.0) as url:
        client = await MultiplexedClient.connect(url, key=SHARED_KEY)
        call = asyncio.ensure_future(client.set("a", "x"))
        await asyncio.sleep(1)
        await client.aclose()
        with pytest.raises(ConnectionLost) as caught:
            await call
        assert caught.value.outcome == "unknown"


async def test_a_cancelled_call_leaves_the_others_alone(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        call = asyncio.ensure_future(client.set("a", "x"))
        await asyncio.sleep(0)
        call.cancel()
        assert await client.get("b") is None
        with pytest.raises(asyncio.CancelledError):
            await call
        await client.set("b", "y")
        assert await client.get("b") == b"y"


async def test_addresses_and_keys_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(SHARED_KEY.hex()[:-1])
    for url, options in (
        ("haptera://127.0.0.1", {"key": SHARED_KEY}),
        ("cafe://u@127.0.0.1", {"key": SHARED_KEY}),
        ("cafe://127.0.0.1?require_bind=true", {"key": SHARED_KEY}),
        ("cafe://127.0.0.1?ca=/x", {"key": SHARED_KEY}),
        ("cafe://127.0.0.1", {}),
        ("cafe://127.0.0.1", {"key": SHARED_KEY[1:]}),
        ("cafe://127.0.0.1", {"key": "x" * 32}),
        (f"cafe://127.0.0.1?key_file={key_file}", {"key": SHARED_KEY}),
        (f"cafe://127.0.0.1?key_file={key_file}", {}),
    ):
        with pytest.raises(ConfigurationError) as caught:
            await MultiplexedClient.connect(url, **options)
        assert SHARED_KEY.hex()[:20] not in str(caught.value)


async def test_the_key_comes_from_a_file(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(SHARED_KEY.hex() + "\n")
    key_file.chmod(0o600)
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(f"{url}?key_file={key_file}") as client:
        assert await client.get("a") is None


async def test_it_speaks_inside_tls_and_over_a_unix_socket(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server", "localhost", "127.0.0.1")
    key_file = tmp_path / "shared.key"
    key_file.write_bytes(SHARED_KEY)
    key_file.chmod(0o600)
    for listen, dialled in (
        (f"cafes://127.0.0.1:0?key_file={key_file}&cert={tmp_path}/server.pem&key={tmp_path}/server.key", "?ca={ca}"),
        (f"cafe+unix://{tmp_path}/s?key_file={key_file}", ""),
    ):
        async with cafe_node_at(listen) as url:
            address = url + dialled.format(ca=tmp_path / "ours-ca.pem")
            async with MultiplexedClient.connect(address, key=SHARED_KEY) as client:
                await client.set("a", "x")
                assert await client.get("a") == b"x"


@asynccontextmanager
async def cafe_node_at(listen: str) -> AsyncIterator[str]:
    from haptera.testing import node

    async with node(storage="memory", listen=[listen]) as url:
        yield str(url)


async def test_a_client_belongs_to_its_loop(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:

        def elsewhere() -> None:
            with pytest.raises(WrongLoop):
                asyncio.run(client.get("a"))

        await asyncio.to_thread(elsewhere)


async def test_a_forked_child_gives_the_connection_up_and_its_parent_goes_on(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        connection = client._connection
        assert connection is not None
        descriptor = connection._transport.get_extra_info("socket").fileno()  # type: ignore[union-attr]

        def look() -> str:
            return f"{connection.home.present} {os.path.samefile(f'/dev/fd/{descriptor}', os.devnull)}"

        assert in_child(look) == "False True"
        assert connection.home.present
        await client.set("a", "x")
        assert await client.get("a") == b"x"


async def test_a_client_that_is_dropped_open_is_warned_of(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url:
        client = await MultiplexedClient.connect(url, key=SHARED_KEY)
        connection = client._connection
        assert connection is not None
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del client
            gc.collect()
        assert any("MultiplexedClient" in str(each.message) for each in caught)
        connection.close()


async def test_nothing_shows_the_key(tmp_path: Path) -> None:
    async with cafe_node(tmp_path) as url, MultiplexedClient.connect(url, key=SHARED_KEY) as client:
        connection = client._connection
        for each in (client, connection, client._key, connection._reader):  # type: ignore[union-attr]
            assert SHARED_KEY.hex() not in repr(each)
            assert repr(SHARED_KEY)[2:20] not in repr(each)


def test_it_imports_nothing_that_only_a_node_needs() -> None:
    program = (
        "import sys, haptera.cafe; haptera.cafe.MultiplexedClient;"
        "print([each for each in sys.modules if each.startswith(('haptera.node', 'haptera.state', 'haptera.peer',"
        " 'haptera.storage', 'haptera.client', 'cryptography', 'sortedcontainers'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_encrypted_message_of_the_client_is_that_of_the_specification() -> None:
    """The bytes are made twice: by the client's code, and from the text."""
    from haptera.dialects.cafe.bodies import message as ours
    from haptera.dialects.cafe.message_keys import ConnectionKey

    nonce = bytes(range(12))
    key = ConnectionKey(SHARED_KEY)
    assert ours(key, GET, 3, 2, b"a", b"", nonce=nonce) == encrypted(GET, 3, nonce, b"a", key=SHARED_KEY)
