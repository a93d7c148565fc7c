"""A defect in a session ends its connection alone, in each of the ways in which the node calls a session."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from haptera.dialects.resp.resp_session import RespSession
from haptera.dialects.resp.subscriptions import Subscriptions, _Watched
from haptera.testing import virtual_clock
from tests.unit.dialects.resp.served import served
from tests.unit.dialects.resp.talks import command

if TYPE_CHECKING:
    from tests.unit.dialects.resp.served import Wire

OK = b"+OK\r\n"
PONG = b"+PONG\r\n"


class Defect:
    """A method that fails for the session of one connection."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self._monkeypatch = monkeypatch

    def put_into(self, kind: type, name: str) -> None:
        """Have a method of a class fail for the connection of this number."""
        real = getattr(kind, name)

        def method(found: Any, *arguments: Any) -> Any:
            session = found if isinstance(found, RespSession) else found._session
            if session.caller.number == self.number:
                raise ZeroDivisionError("a defect")
            return real(found, *arguments)

        self._monkeypatch.setattr(kind, name, method)


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> Defect:
    return Defect(monkeypatch)


async def check_end(defect: Defect, victim: Wire, other: Wire, log: pytest.LogCaptureFixture) -> None:
    """The victim has no reply more, another connection has its own, and the log names the defect once or more."""
    while reply := await victim.reply():
        assert reply == PONG
    assert await other.do("SET", "a", "1") == OK
    assert await other.do("GET", "a") == b"$1\r\n1\r\n"
    assert {record.message for record in log.records} & {"session_failed", "answer_failed"} == {"session_failed"}


@virtual_clock
@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("answered", command("SET", "a", "1")),
        ("_take_lone", command("GET", "a")),
        ("_read_run", command("GET", "a") * 2),
        ("_end_slow", command("KEYS", "*")),
        ("_continue", command("PING") * 2000),
        ("tell_other_user", command("RESET")),
    ],
)
async def test_a_defect_in_a_callback_ends_its_connection_alone(
    defect: Defect, caplog: pytest.LogCaptureFixture, method: str, sent: bytes
) -> None:
    defect.put_into(RespSession, method)
    async with served() as node:
        victim, other = await node.wire(), await node.wire()
        defect.number = int((await victim.do("CLIENT", "ID"))[1:])
        victim.send(sent)
        await check_end(defect, victim, other, caplog)


@virtual_clock
async def test_a_defect_in_the_messages_of_a_change_ends_its_connection_alone(
    defect: Defect, caplog: pytest.LogCaptureFixture
) -> None:
    defect.put_into(_Watched, "_send")
    async with served() as node:
        victim, third, other = await node.wire(), await node.wire(), await node.wire()
        defect.number = int((await victim.do("CLIENT", "ID"))[1:])
        await victim.do("SUBSCRIBE", "__keyspace@0__:key")
        await third.do("SUBSCRIBE", "__keyspace@0__:key")
        assert await other.do("SET", "key", "1") == OK
        await check_end(defect, victim, other, caplog)
        assert b"__keyspace@0__:key" in await third.reply()


@virtual_clock
async def test_a_connection_whose_end_has_a_defect_is_counted_as_gone(
    defect: Defect, caplog: pytest.LogCaptureFixture
) -> None:
    defect.put_into(Subscriptions, "leave")
    async with served() as node:
        victim, other = await node.wire(), await node.wire()
        defect.number = int((await victim.do("CLIENT", "ID"))[1:])
        await victim.do("SUBSCRIBE", "any")
        victim.send(command("QUIT"))
        assert await victim.reply() == OK
        victim.close()
        while b"id=%d " % defect.number in await other.do("CLIENT", "LIST"):
            pass
        await check_end(defect, victim, other, caplog)
