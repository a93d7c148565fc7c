"""That whoever connects cannot fill a disk with lines of the log."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from haptera import CallError, ConnectionLost, Failure, Peer, Request, Service, dial, method
from haptera.errors import HandlerFailed
from haptera.peer.event_log import INTERVAL_S, LINES_MAX, TEXT_MAX
from haptera.testing import virtual_clock
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.payload import encode_payload
from tests.unit.peer.hosts import ANY_PORT, Echo, eventually, served
from tests.unit.peer.raw import RawPeer


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Level and event of each line."""
    return [(record.levelname, record.getMessage()) for record in caplog.records]


def left_out(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Any, Any]]:
    """Level, event and number of what was left out, by the lines that say so."""
    return [
        (record.levelname, vars(record)["of"], vars(record)["count"])
        for record in caplog.records
        if record.getMessage() == "lines_left_out"
    ]


async def rubbish(url: str, data: bytes = b"rubbish") -> None:
    raw = await RawPeer.open(url)
    await raw.send(data)
    await raw.read_to_end()
    await raw.close()


def error(message: str, name: str = "N") -> bytes:
    said = Failure(1008, name, message, "unknown", {})
    return encode_frame(FrameType.ERROR, 0, 0, b"", encode_payload(said))


@virtual_clock
async def test_of_many_connections_that_fail_some_have_a_line_and_the_rest_one_together(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with served(ANY_PORT, Echo()) as server:
        for _ in range(1000):
            await rubbish(server.url)
        assert lines(caplog) == [("WARNING", "connection_failed")] * LINES_MAX
        await asyncio.sleep(INTERVAL_S)
        assert left_out(caplog) == [("WARNING", "connection_failed", 1000 - LINES_MAX)]
        assert vars(caplog.records[-1])["url"] == server.url
        # And then there are lines again.
        caplog.clear()
        await rubbish(server.url)
        await asyncio.sleep(INTERVAL_S)
        assert lines(caplog) == [("WARNING", "connection_failed")]


@virtual_clock
async def test_a_flood_that_lasts_has_so_many_lines_in_each_interval(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ANY_PORT, Echo()) as server:
        for _ in range(600):
            await rubbish(server.url)
            await asyncio.sleep(0.1)
    written = [event for _, event in lines(caplog)].count("connection_failed")
    assert 5 * LINES_MAX <= written <= 7 * LINES_MAX
    assert written + sum(count for _, _, count in left_out(caplog)) == 600
    assert len(left_out(caplog)) <= 7


@virtual_clock
async def test_each_event_has_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """One kind of trouble does not hide another."""
    caplog.set_level(logging.DEBUG, "haptera.peer")
    async with served(ANY_PORT, Echo(), max_connections=1) as server:
        peer = await dial(server.url)
        await peer.ready()
        caplog.clear()
        for _ in range(LINES_MAX + 3):
            late = await dial(server.url)
            with pytest.raises(ConnectionLost):
                await late.ready()
            await late.aclose()
        await peer.aclose()
        await eventually(lambda: not server.peers)
        for _ in range(LINES_MAX + 2):
            await rubbish(server.url)
        await rubbish(server.url, error("no"))
    assert dict.fromkeys(lines(caplog)).keys() >= {("WARNING", "connection_failed"), ("WARNING", "connection_refused")}
    omitted = left_out(caplog)
    assert ("WARNING", "connection_failed", 2) in omitted or ("WARNING", "connection_failed", 3) in omitted
    assert ("WARNING", "connection_refused", 3) in omitted
    assert "DEBUG" in {level for level, _, _ in omitted}, "at this level beginnings and ends have lines, so many too"


@virtual_clock
async def test_what_was_left_out_is_told_when_the_listener_ends(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    for end in ("aclose", "drain"):
        caplog.clear()
        async with served(ANY_PORT, Echo()) as server:
            for _ in range(LINES_MAX + 5):
                await rubbish(server.url)
            start = loop.time()
            await getattr(server, end)()
            assert loop.time() - start < INTERVAL_S / 2
        assert left_out(caplog) == [("WARNING", "connection_failed", 5)]


@virtual_clock
async def test_a_peers_own_words_are_cut(caplog: pytest.LogCaptureFixture) -> None:
    async with served(ANY_PORT, Echo()) as server:
        raw = await RawPeer.open(server.url)
        await raw.hello()
        await raw.send(error("\x01" * 60_000, "N" * 5_000))
        await raw.read_to_end()
        await raw.close()
        await eventually(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == "connection_ended_by_peer"
    fields = vars(record)
    assert (len(fields["reason"]), len(fields["code_name"])) == (TEXT_MAX, TEXT_MAX)
    assert fields["reason"].endswith("…")


@virtual_clock
async def test_nothing_is_counted_that_nobody_would_read(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR, "haptera.peer")
    loop = asyncio.get_running_loop()
    async with served(ANY_PORT, Echo()) as server:
        for _ in range(LINES_MAX + 5):
            await rubbish(server.url)
        await asyncio.sleep(2 * INTERVAL_S)
        assert loop.time() >= 2 * INTERVAL_S
    assert lines(caplog) == []


class Failing(Service):
    """A handler that whoever calls it can make fail."""

    name = "failing"

    @method
    async def fails(self, request: Request) -> bytes:
        raise ValueError("a fault")

    @method
    async def cannot_be_told(self, request: Request) -> bytes:
        raise CallError(10_001, "UNTOLD", "its details cannot be encoded", details={"object": object()})


@pytest.mark.parametrize("name", ["fails", "cannot_be_told"])
@pytest.mark.parametrize("side", ["accepted", "dialled"])
@virtual_clock
async def test_a_caller_cannot_fill_a_disk_with_a_handler_that_fails(
    caplog: pytest.LogCaptureFixture, side: str, name: str
) -> None:
    """On a connection that was dialled as well: there it is the listener who calls."""
    event = "handler_failed" if name == "fails" else "error_not_sent"
    accepted: list[Peer] = []
    async with served(ANY_PORT, Failing(), on_peer=accepted.append) as server:
        peer = await dial(server.url, services=[Failing()])
        await peer.ready()
        caller = peer if side == "accepted" else accepted[0]
        for _ in range(500):
            with pytest.raises(HandlerFailed):
                await caller.call("failing", name)
        written = [vars(record) for record in caplog.records if record.getMessage() == event]
        assert [(line["service"], line["method"]) for line in written] == [("failing", f"failing.{name}")] * LINES_MAX
        assert all(line["exc_info"] for line in written)
        await peer.aclose()
    assert left_out(caplog) == [("ERROR", event, 500 - LINES_MAX)]
