"""The connections that one user may have at a served node."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

import haptera
from haptera.errors import HapteraError
from haptera.peer import dial
from haptera.state.access_operations import AddUser
from haptera.testing import node
from tests.support.planted import PASSWORD
from tests.support.planted import SIGNING_KEY as KEY
from tests.unit.node.nodes import done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from haptera.testing import NodeUrl

pytestmark = pytest.mark.usefixtures("quick_passwords")

ANY_PORT = "haptera://127.0.0.1:0"


@asynccontextmanager
async def served(*listen: str, **options: Any) -> AsyncIterator[NodeUrl]:
    async with node(
        listen=listen or ANY_PORT, no_auth=False, admin_password=PASSWORD, max_connections_per_user=2, **options
    ) as url:
        yield url


async def come_in(stack: AsyncExitStack, url: str, **credential: Any) -> Any:
    peer = await stack.enter_async_context(dial(url, **credential))
    await peer.call("session", "whoami", b"\x90")
    return peer


async def refused(url: str, **credential: Any) -> HapteraError:
    async with AsyncExitStack() as stack:
        with pytest.raises(HapteraError) as caught:
            await come_in(stack, url, **credential)
        return caught.value


async def test_one_connection_too_many_of_a_user_is_refused_behind_its_proof_and_a_place_is_given_back() -> None:
    async with served(ANY_PORT, ANY_PORT) as url, AsyncExitStack() as stack:
        admin: dict[str, Any] = {"user": "admin", "password": PASSWORD}
        first = await come_in(stack, url.server.urls[0], **admin)
        await come_in(stack, url.server.urls[1], **admin)
        for each in url.server.urls[:2]:
            error = await refused(each, **admin)
            assert (error.code, error.details) == (1013, {"limit": 2})
        assert (await refused(url, user="admin", password="another one")).code == 2002, "without a proof no one is told"
        assert url.node.metrics.values()["connections_refused_total"] == 2
        async with haptera.connect(url.server.urls[-1]) as local:
            await local.set("k", b"v")
        await first.aclose()
        while url.node.connections > 1:
            await asyncio.sleep(0.01)
        await come_in(stack, url, **admin)


async def test_the_peers_of_a_signing_key_are_one_user(tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(KEY)
    key.chmod(0o600)
    async with served(signing_key_file=str(key), signing_user="app") as url, AsyncExitStack() as stack:
        assert await done(url.node, AddUser("app", None, [])) == [(True,)]
        for _ in range(2):
            await come_in(stack, url, signing_key=KEY)
        assert (await refused(url, signing_key=KEY)).code == 1013


async def test_another_user_has_a_share_of_its_own() -> None:
    async with served() as url, AsyncExitStack() as stack:
        async with haptera.connect(url, user="admin", password=PASSWORD) as root:
            await root.admin.add_user("ann", "another horse with a battery")
        for _ in range(2):
            await come_in(stack, url, user="ann", password="another horse with a battery")
        await come_in(stack, url, user="admin", password=PASSWORD)
