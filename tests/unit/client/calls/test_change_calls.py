"""The history of a key, read page by page: all pages are of one server."""

from __future__ import annotations

import pytest

from haptera.client.database import Database
from haptera.errors import RevisionCompacted
from haptera.testing import virtual_clock
from tests.unit.client.doubles import SERVER, Dialler, FakePeer, Sent, channel


def page(*versions: int, more: bool) -> FakePeer:
    """A server that answers one request with a page, and is lost behind it."""

    def answer(sent: Sent) -> None:
        sent.answer([[version, 1, b""] for version in versions], more, 1)

    return FakePeer(answer)


@pytest.mark.parametrize("server_id", [SERVER, b"o" * 16])
@virtual_clock
async def test_a_history_goes_on_at_its_own_server_alone(server_id: bytes) -> None:
    first, second = page(1, 2, more=True), page(5, more=False)
    second.server_id = server_id
    async with Database(channel(Dialler(first, second)), "haptera://a:1", 5.0) as db:
        changes = db.history("a")
        found = [(await anext(changes)).version for _ in range(2)]
        first.lose()
        if server_id == SERVER:
            found += [change.version async for change in changes]
            assert found == [1, 2, 5]
        else:
            with pytest.raises(RevisionCompacted, match="another server") as ended:
                await anext(changes)
            assert ended.value.details == {"revision": 3}
