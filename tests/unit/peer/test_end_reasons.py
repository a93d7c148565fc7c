"""What stands in the log of a connection's beginning and its end."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from haptera.peer import link_of
from haptera.peer.link import Link
from haptera.testing import connected_peers, virtual_clock
from tests.unit.peer.hosts import ANY_PORT, Echo, eventually, served
from tests.unit.peer.raw import RawPeer

if TYPE_CHECKING:
    import pytest


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, object]]:
    """Level, event and reason of each line."""
    return [(record.levelname, record.message, vars(record).get("reason")) for record in caplog.records]


@virtual_clock
async def test_a_connection_has_a_line_at_its_beginning_and_one_at_its_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "haptera.peer")
    async with connected_peers() as (dialer, acceptor):
        assert said(caplog) == [("DEBUG", "connection_opened", None)] * 2
        await dialer.ready()
        caplog.clear()
        await dialer.drain()
        await eventually(lambda: acceptor.closed)
        assert said(caplog) == [
            ("DEBUG", "connection_ended", "it is drained"),
            ("DEBUG", "connection_ended", "the other side has closed it"),
        ]
        assert {vars(record)["connection"] for record in caplog.records} == {dialer.session.hex()}


@virtual_clock
async def test_the_error_of_a_transport_is_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    async with connected_peers() as (dialer, acceptor):
        await dialer.ready()
        caplog.set_level(logging.DEBUG, "haptera.peer")
        link_of(dialer).connection_lost(ConnectionResetError(104, "Connection reset by peer"))
        await acceptor.aclose()
        assert said(caplog) == [
            ("DEBUG", "connection_ended", "[Errno 104] Connection reset by peer"),
            ("DEBUG", "connection_ended", "it is closed here"),
        ]


@virtual_clock
async def test_who_connects_and_leaves_without_a_word_is_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    """As a load balancer does, to see whether somebody listens."""
    caplog.set_level(logging.DEBUG, "haptera.peer")
    async with served(ANY_PORT, Echo()) as server:
        raw = await RawPeer.open(server.url)
        await eventually(lambda: server.peers)
        await raw.close()
        await eventually(lambda: not server.peers)
    assert said(caplog) == [
        ("DEBUG", "connection_opened", None),
        ("DEBUG", "connection_ended", "the other side has closed it"),
    ]


@virtual_clock
async def test_who_is_to_blame_has_a_warning_and_no_second_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "haptera.peer")
    async with served(ANY_PORT, Echo()) as server:
        raw = await RawPeer.open(server.url)
        await raw.send(b"rubbish")
        await raw.read_to_end()
        await raw.close()
        await eventually(lambda: not server.peers)
    assert [(level, event) for level, event, _ in said(caplog)] == [
        ("DEBUG", "connection_opened"),
        ("WARNING", "connection_failed"),
    ]


@virtual_clock
async def test_nothing_is_put_together_for_lines_that_nobody_reads(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "haptera.peer")
    asked = []

    def log_fields(link: Link, **fields: object) -> dict[str, object]:
        asked.append(link)
        return fields

    monkeypatch.setattr(Link, "log_fields", log_fields)
    async with connected_peers() as (dialer, acceptor):
        await dialer.ready()
        await dialer.drain()
        await eventually(lambda: acceptor.closed)
    assert asked == []
