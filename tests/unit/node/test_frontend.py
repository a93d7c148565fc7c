"""The node's part in the connections of a dialect: bounds, logins, rates and records as for its own protocol."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from haptera import dial
from haptera.cli.serve import _client_options
from haptera.client import connect
from haptera.errors import ConfigurationError, ConnectionLost
from haptera.node import NodeConfig, check_listening
from haptera.node.frontend import frontend_connection
from haptera.testing import node, virtual_clock
from tests.support.certificates import Authority, listening
from tests.unit.dialects.lines import Lines

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")

PASSWORD = "correct horse battery staple"

DIALECTS: dict[str, Any] = {"resp": Lines()}


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("haptera.testing.nodes.DIALECTS", DIALECTS)


#: The connections of a test, which `with_dialect` closes.
opened_lines: list[Line] = []


class Line:
    """A client of the dialect."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def to(cls, url: NodeUrl, **options: Any) -> Line:
        port = int(url.server.urls[1].rpartition(":")[2])
        line = cls(*await asyncio.open_connection("127.0.0.1", port, **options))
        opened_lines.append(line)
        return line

    async def ask(self, line: str) -> str:
        self.writer.write(line.encode() + b"\n")
        return (await self.reader.readline()).decode().rstrip("\n")

    async def ended(self) -> str:
        """All that is said until the end of the connection."""
        return (await self.reader.read()).decode()

    async def close(self) -> None:
        self.writer.close()
        await self.writer.wait_closed()


@asynccontextmanager
async def with_dialect(**options: Any) -> AsyncIterator[NodeUrl]:
    """A node that listens for the dialect too, and has the key ``greeting``."""
    listen = ("haptera://127.0.0.1:0", "resp://127.0.0.1:0")
    async with node(storage="memory", **{"listen": listen, **options}) as url:
        async with connect(f"haptera+unix://{quote(url.node.local_socket_path)}") as db:
            await db.set("greeting", b"hello")
        try:
            yield url
        finally:
            while opened_lines:
                opened_lines.pop().writer.close()
                await asyncio.sleep(0)


# -- users ----------------------------------------------------------------------------------------------------------


async def test_a_user_logs_in_and_may_do_what_its_grants_say() -> None:
    async with with_dialect(no_auth=False, admin_password=PASSWORD) as url:
        line = await Line.to(url)
        assert await line.ask("greeting") == "! PERMISSION_DENIED"
        assert await line.ask(f"login admin {PASSWORD.replace(' ', '_')}") == "! AUTHENTICATION_FAILED"
        await line.close()


async def test_a_wrong_password_is_counted_recorded_and_slowed_down() -> None:
    async with with_dialect(no_auth=False, admin_password=PASSWORD) as url:
        line = await Line.to(url)
        answers = [await line.ask("login admin wrong") for _ in range(8)]
        assert answers[0] == "! AUTHENTICATION_FAILED"
        assert answers[-1] == "! AUTHENTICATION_LOCKED"
        assert url.node.metrics.logins_failed_total == 8
        await url.node.audit.written()
        text = audit_log(url)
        told = [json.loads(each) for each in text.splitlines()]
        attempts = [each for each in told if each.get("method") == "session.authenticate" and each["code"] == 2002]
        assert attempts
        assert {each["user"] for each in attempts} == {"admin"}
        assert b"wrong" not in text.replace(b"password is wrong", b"")
        await line.close()


def audit_log(url: NodeUrl) -> bytes:
    fs = url.filesystem
    assert fs is not None
    return b"".join(fs.read(f"/data/audit/{name}") for name in sorted(fs.listdir("/data/audit")))


async def test_a_connection_ends_when_its_user_has_another_password() -> None:
    password = PASSWORD.replace(" ", "_")
    async with with_dialect(no_auth=False, admin_password=password) as url:
        line = await Line.to(url)
        assert await line.ask(f"login admin {password}") == "welcome"
        assert await line.ask("greeting") == "hello"
        async with connect(f"haptera+unix://{quote(url.node.local_socket_path)}") as db:
            await db.admin.set_password("admin", "another_long_password_of_it")
        assert await line.ended() == "! AUTHENTICATION_REQUIRED\n"
        await line.close()


@virtual_clock
async def test_a_connection_without_a_login_has_ten_seconds() -> None:
    listen = ("haptera://127.0.0.1:0", "resp://127.0.0.1:0")
    async with node(storage="memory", listen=listen, no_auth=False, admin_password=PASSWORD) as url:
        line = await Line.to(url)
        assert url.server._every[-1].half_open == 1
        before = asyncio.get_running_loop().time()
        assert await line.ended() == "! HANDSHAKE_TIMEOUT\n"
        assert 10.0 <= asyncio.get_running_loop().time() - before < 11.0
        await line.close()


# -- bounds ---------------------------------------------------------------------------------------------------------


@virtual_clock
async def test_a_silent_connection_without_users_may_stay() -> None:
    async with with_dialect() as url:
        line = await Line.to(url)
        await asyncio.sleep(3600)
        assert await line.ask("greeting") == "hello"
        values = url.node.metrics.values()
        assert (values["connections"], values["half_open_connections"]) == (1, 0)


@virtual_clock
async def test_a_begun_message_must_be_whole_in_time() -> None:
    async with with_dialect(message_timeout=5) as url:
        line = await Line.to(url)
        line.writer.write(b"gree")
        before = asyncio.get_running_loop().time()
        assert await line.ended() == "! IDLE_TIMEOUT\n"
        assert 5.0 <= asyncio.get_running_loop().time() - before < 6.0


@virtual_clock
async def test_an_address_has_its_share_of_the_connections_over_all_protocols() -> None:
    async with with_dialect(max_connections_per_address=2) as url:
        first = await Line.to(url)
        assert await first.ask("greeting") == "hello"
        async with connect(url) as db:
            assert await db.exists("greeting")
            second = await Line.to(url)
            assert await second.ended() == "! TOO_MANY_CONNECTIONS\n"
        await asyncio.sleep(1)
        third = await Line.to(url)
        assert await third.ask("greeting") == "hello"
        assert url.node.metrics.values()["connections_refused_total"] == 1


@virtual_clock
async def test_commands_beyond_the_rate_are_refused() -> None:
    async with with_dialect(session_rate=2, rate_burst=1) as url:
        line = await Line.to(url)
        answers = [await line.ask("greeting") for _ in range(4)]
        assert answers == ["hello", "hello", "! RATE_LIMITED", "! RATE_LIMITED"]
        await asyncio.sleep(1)
        assert await line.ask("greeting") == "hello"
        assert url.node.metrics.requests_rate_limited_total == 2


@virtual_clock
async def test_a_reader_that_never_reads_has_no_more_commands_done_and_is_ended() -> None:
    async with with_dialect(write_timeout=20) as url:
        async with connect(url) as db:
            await db.set("large", bytes(1024 * 1024))
        line = await Line.to(url)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(b"large\n" * 500)
        await asyncio.sleep(1)
        [connection] = url.server._facts.connections()
        assert connection.full
        assert connection.bytes_sent <= 4 * frontend_connection.UNWRITTEN_MAX
        other = await Line.to(url)
        assert await other.ask("greeting") == "hello"
        await asyncio.sleep(60)
        assert url.server._facts.connections() != [connection]
        assert len(url.server._facts.connections()) == 1


@virtual_clock
async def test_a_reader_of_one_large_answer_that_never_reads_is_ended() -> None:
    async with with_dialect(write_timeout=20) as url:
        async with connect(url) as db:
            await db.set("large", bytes(8 * 1024 * 1024))
        line = await Line.to(url)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(b"large\n")
        await asyncio.sleep(1)
        assert len(url.server._facts.connections()) == 1
        await asyncio.sleep(60)
        assert not url.server._facts.connections()
        assert url.server._budget.used == 0


@virtual_clock
async def test_answers_that_are_not_taken_are_charged_to_the_process() -> None:
    async with with_dialect() as url:
        async with connect(url) as db:
            await db.set("large", bytes(1024 * 1024))
        before = url.server._budget.used
        line = await Line.to(url)
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(b"large\n" * 500)
        await asyncio.sleep(1)
        assert url.server._budget.used - before >= frontend_connection.UNWRITTEN_MAX // 2
        line.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await line.reader.readexactly(500 * (1024 * 1024 + 1))
        assert url.server._budget.used == before
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        line.writer.write(b"large\n" * 500)
        await asyncio.sleep(1)
        line.writer.transport.abort()
        await asyncio.sleep(1)
        assert url.server._budget.used == before


@virtual_clock
async def test_what_a_session_holds_is_charged_to_the_process() -> None:
    async with with_dialect() as url:
        line = await Line.to(url)
        line.writer.write(b"gree")
        await asyncio.sleep(1)
        assert url.server._budget.used == 4
        await line.close()
        await asyncio.sleep(1)
        assert url.server._budget.used == 0


async def test_what_the_connections_of_a_user_hold_is_charged_to_the_user_too() -> None:
    password = PASSWORD.replace(" ", "_")
    async with with_dialect(no_auth=False, admin_password=password) as url:
        async with connect(f"haptera+unix://{quote(url.node.local_socket_path)}") as db:
            await db.admin.add_user("ann", password)
        budgets = url.server._user_budgets
        first, second, other = await Line.to(url), await Line.to(url), await Line.to(url)
        for line, user in ((first, "ann"), (second, "ann"), (other, "admin")):
            assert await line.ask(f"login {user} {password}") == "welcome"
        one, two, three = url.server._facts.connections()
        assert one.charge(budgets.limit - 100_000)
        assert (budgets.used("ann"), budgets.used("admin")) == (budgets.limit - 100_000, 0)
        assert two.charge(100_000)
        assert not two.charge(100_001)
        assert two.charge(frontend_connection.HELD_MIN), "a connection that holds little may hold that"
        assert three.charge(100_001), "another user has a budget of its own"
        one.caller.leave()  # as where it gets another identity
        assert budgets.used("ann") == frontend_connection.HELD_MIN
        assert url.server._budget.used == budgets.limit - 100_000 + frontend_connection.HELD_MIN + 100_001
        for line in (first, second, other):
            await line.close()
        while url.server._facts.connections():
            await asyncio.sleep(0)
        assert (budgets._budgets, url.server._budget.used) == ({}, 0)


@virtual_clock
async def test_a_defect_of_a_session_ends_its_connection_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with with_dialect() as url:
        line, other = await Line.to(url), await Line.to(url)
        line.writer.write(b"login one-word\n")
        assert await line.ended() == ""
        assert await other.ask("greeting") == "hello"
        assert "session_failed" in [record.message for record in caplog.records]


@virtual_clock
async def test_a_dialler_of_haptera_is_told_which_protocol_the_address_speaks() -> None:
    async with with_dialect() as url:
        place = url.server.urls[1].replace("resp://", "haptera://")
        with pytest.raises(ConnectionLost, match=r"1008.*this address speaks RESP, not Haptera") as caught:
            async with dial(place) as peer:
                await peer.call("kv", "get", b"")
        assert caught.value.outcome == "not_applied"
        line = await Line.to(url)
        assert await line.ask("greeting") == "hello"
        await line.close()


@virtual_clock
async def test_a_dialler_of_haptera_without_tls_is_told_which_protocol_the_address_speaks(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    ours.issue("server", "localhost")
    listen = ("haptera://127.0.0.1:0", "resps://127.0.0.1:0" + listening(tmp_path))
    async with with_dialect(listen=listen) as url:
        place = url.server.urls[1].partition("?")[0].replace("resps://", "haptera://")
        with pytest.raises(ConnectionLost, match=r"1008.*this address speaks RESP with TLS, not Haptera"):
            async with dial(place) as peer:
                await peer.call("kv", "get", b"")


@virtual_clock
async def test_a_drained_node_ends_its_dialects_connections() -> None:
    async with with_dialect() as url:
        line = await Line.to(url)
        assert await line.ask("greeting") == "hello"
        await url.server.drain(5.0)
        assert await line.ended() == "! GOING_AWAY\n"
        with pytest.raises(OSError, match="nothing listens"):
            await Line.to(url)


@virtual_clock
async def test_requests_bytes_and_commands_are_counted() -> None:
    async with with_dialect() as url:
        line = await Line.to(url)
        before = url.node.metrics.values()
        await line.ask("greeting")
        await line.ask("nothing")
        await line.close()
        await asyncio.sleep(1)
        after = url.node.metrics.values()
        names = ("requests_received_total", 'requests_total{method="kv.get"}', "kv_reads_total", "kv_failures_total")
        assert [after[name] - before[name] for name in names] == [2, 2, 2, 1]
        assert after["wire_received_bytes_total"] - before["wire_received_bytes_total"] == len("greeting\nnothing\n")


@virtual_clock
async def test_the_greeting_of_serve_names_a_listener_of_the_nodes_own_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with with_dialect(listen=("resp://127.0.0.1:0", "haptera://127.0.0.1:0")) as url:
        assert _client_options(url.server, url.node.config) == f" --url {url.server.urls[1]}"
    monkeypatch.setattr("haptera.node.listening.SOCKET_PATH_MAX", 0)  # so that there is no local socket
    async with node(listen="resp://127.0.0.1:0", storage="memory") as alone:
        assert alone.server.urls == [str(alone)]
        assert _client_options(alone.server, alone.node.config) is None


# -- TLS and URLs ---------------------------------------------------------------------------------------------------


async def test_a_certificate_stands_for_a_user_inside_tls(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    ours.issue("server", "localhost")
    ours.issue("admin", "admin")
    files = "&".join(
        f"{name}={quote(str(tmp_path / file))}"
        for name, file in {"cert": "server.pem", "key": "server.key", "client_ca": "ours-ca.pem"}.items()
    )
    listen = ("haptera://127.0.0.1:0", f"resps://127.0.0.1:0?{files}")
    context = ssl.create_default_context(cafile=str(ours.path))
    context.load_cert_chain(str(tmp_path / "admin.pem"), str(tmp_path / "admin.key"))
    async with with_dialect(listen=listen, no_auth=False, admin_password=PASSWORD) as url:
        line = await Line.to(url, ssl=context, server_hostname="localhost")
        assert await line.ask("greeting") == "hello"
        [connection] = url.server._facts.connections()
        assert (connection.caller.tls, connection.caller.certificate_names) == (True, ("admin",))
        await line.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("resp://127.0.0.1:0?color=red", "the option 'color' is not known"),
        ("resp://127.0.0.1:0?cert=a", "cert is an option of resps://"),
        ("resps://127.0.0.1:0", "TLS needs cert=FILE and key=FILE"),
        ("cafe://127.0.0.1:0", "this node does not speak cafe"),
        ("resp://0.0.0.0:0", "its frames are neither encrypted nor signed: listen inside TLS"),
    ],
)
def test_an_address_that_cannot_be_listened_on_says_why(tmp_path: Path, url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        check_listening(NodeConfig(data_dir=str(tmp_path / "d"), listen=(url,)), DIALECTS)


def test_an_address_has_no_user(tmp_path: Path) -> None:
    config = NodeConfig(data_dir=str(tmp_path / "d"), listen=("resp://ann@127.0.0.1:0",))
    with pytest.raises(ConfigurationError, match="a listener has none"):
        check_listening(config, DIALECTS)


@virtual_clock
async def test_the_greeting_of_an_option_is_the_first_line() -> None:
    listen = ("haptera://127.0.0.1:0", "resp://127.0.0.1:0?greeting=hi")
    async with with_dialect(listen=listen) as url:
        line = await Line.to(url)
        assert (await line.reader.readline()) == b"hi\n"
