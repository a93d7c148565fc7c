"""The calls of a database about users: who the caller is, and the way to their administration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.client.calls.access_methods import SessionMethods, Whoami
from haptera.client.calls.calling import Calling
from haptera.peer import DEFAULT, Timeout

if TYPE_CHECKING:
    from haptera.client.calls.administration import Administration


class AccessCalls(Calling):
    """The calls about users."""

    @property
    def admin(self) -> Administration:
        """The users, roles, grants and tokens of the store, and the calls that change them."""
        from haptera.client.calls.administration import Administration  # noqa: PLC0415 - few programs administer users

        return Administration(self._channel, self._timeout)

    async def whoami(self, *, timeout: Timeout = DEFAULT) -> Whoami:
        """The identity that the store takes this database for: its user, the roles of that, and the mechanism by which
        it was proved.
        """
        return await self._call(SessionMethods.whoami, (), timeout)
