"""What a call that met trouble may still do: be sent again, or not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import pytest

from haptera.client.calls.key_calls import KvMethods
from haptera.client.channels.retries import RESEND_SECONDS_MAX, StoreCall
from haptera.testing import virtual_clock
from tests.unit.client.doubles import SERVER, FakeCall, FakePeer

if TYPE_CHECKING:
    from haptera.peer import Call, Peer

OTHER = b"other server id."


def peer(server_id: bytes | None = SERVER, *capabilities: str) -> Peer:
    return cast("Peer", FakePeer(server_id=server_id, capabilities=frozenset(capabilities or {"idempotency"})))


def change(timeout: float | None = None) -> StoreCall:
    return StoreCall(KvMethods.set, b"", bytes(16), 0.0, timeout)


def sent() -> Call:
    return cast("Call", FakeCall(loop=asyncio.get_running_loop()))


def test_a_change_that_may_have_been_applied_is_not_repeated_without_end() -> None:
    """Trap: a change resent when its server may have forgotten it. Not even a call without a timeout is."""
    call = change(timeout=None)
    assert call.may_repeat(1e9, 0)
    call.unanswered(peer(), "unknown")
    assert call.may_repeat(RESEND_SECONDS_MAX - 0.001, 0)
    assert not call.may_repeat(RESEND_SECONDS_MAX, 0)
    assert call.may_repeat(0.0, int(RESEND_SECONDS_MAX * 1e9) - 1)
    assert not call.may_repeat(0.0, int(RESEND_SECONDS_MAX * 1e9))


def test_a_read_is_repeated_for_as_long_as_it_has_time() -> None:
    call = StoreCall(KvMethods.get, b"", None, 0.0, None)
    call.unanswered(peer(), "unknown")
    assert call.may_repeat(1e9, 0)


@pytest.mark.parametrize(
    "attempts",
    [
        [peer(SERVER), peer(OTHER)],
        [peer(OTHER), peer(SERVER)],
        [peer(SERVER), peer(SERVER, "pipelining")],
        [peer(SERVER, "pipelining")],
        [peer(None)],
        [peer(None), peer(SERVER)],
    ],
    ids=["two servers", "two others", "one that forgets", "never remembered", "unknown server", "unknown, then known"],
)
def test_a_change_that_no_one_server_remembers_is_not_repeated(attempts: list[Peer]) -> None:
    """Trap: a change resent where two servers may have it: each would apply it."""
    call = change()
    for attempt in attempts:
        call.unanswered(attempt, "unknown")
    assert not call.may_repeat(0.0, 0)
    assert not any(call.remembered_by(each) for each in (peer(SERVER), peer(OTHER)))


def test_what_was_certainly_not_applied_may_go_to_another_server() -> None:
    call = change()
    call.unanswered(peer(SERVER), "not_applied")
    assert call.may_repeat(1e9, 0)
    call.unanswered(peer(OTHER), "unknown")
    assert call.may_repeat(0.0, 0)
    assert call.remembered_by(peer(OTHER))
    assert not call.remembered_by(peer(SERVER))


@virtual_clock
async def test_only_what_may_be_on_its_way_on_another_connection_is_resent() -> None:
    first, second = peer(), peer()
    call = change()
    assert not call.resent_on(first)
    call.unanswered(first, "not_applied")
    assert not call.resent_on(second)
    damaged = sent()
    call.unanswered(second, "unknown", damaged)
    assert not call.resent_on(second)
    call.end()
    assert damaged.released  # type: ignore[attr-defined]


@virtual_clock
async def test_what_was_sent_on_two_connections_is_forgotten_by_time_alone() -> None:
    """Trap: a change applied twice. The hold on the first connection outlives the call: its answer stays remembered."""
    first, second = peer(), peer()
    call = change()
    damaged = sent()
    call.unanswered(first, "unknown", damaged)
    assert call.resent_on(second)
    call.unanswered(second, "unknown", again := sent())
    assert call.resent_on(second)
    call.end()
    assert not damaged.released  # type: ignore[attr-defined]
    assert again.released  # type: ignore[attr-defined]
