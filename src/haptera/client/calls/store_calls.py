"""The calls of a database about the node and the store as a whole."""

from __future__ import annotations

from typing import Any, TypeVar

from haptera.client.calls.argument_checks import checked_timeout
from haptera.client.calls.backup_pieces import Backup
from haptera.client.calls.calling import Calling
from haptera.client.calls.methods import BackedUp, Maintenance, ServerMethods
from haptera.client.channels.channel import StreamEnd
from haptera.peer import DEFAULT, Timeout

R = TypeVar("R")


class StoreCalls(Calling):
    """The calls about the store."""

    @property
    def revision(self) -> int:
        """The store's revision in the last answer; 0 before the first. Right after a call it is that call's: for a read
        of the past, the revision that it is of.
        """
        return self._channel.revision

    @property
    def reached(self) -> str | None:
        """The node that has answered last, as a URL without options; None before the first answer.

        Of several hosts it says which one. For an embedded store it is the path of the data directory.
        """
        return self._channel.reached

    @property
    def connected_once(self) -> bool:
        """Whether there has ever been a connection, or an embedded store was opened.

        Until then nothing was sent: a change that is cancelled meanwhile was certainly not applied.
        """
        return self._channel.connected_once

    @property
    def closed(self) -> bool:
        """Whether it takes no more calls: it is closed or about to be, or the node of an embedded store has failed."""
        return self._channel.closed

    async def status(self, *, timeout: Timeout = DEFAULT) -> dict[str, Any]:
        """The status of the node: version, node_id, uptime_ms, durability, revision, keys and more."""
        return await self._call(ServerMethods.status, (), timeout)

    async def maintenance(self, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Whether the store is closed to changes (`begin_maintenance`). Needs the permission ``admin``.

        Args:
            timeout: Seconds; the database's own unless given.

        Returns:
            Whether it is, why, and since when.

        Raises:
            PermissionDenied: The user may not ask.
        """
        return await self._call(ServerMethods.maintenance, (), timeout)

    async def begin_maintenance(self, reason: str, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Close the store to changes until `end_maintenance`, over restarts too. Needs the permission ``admin``.

        Each change is refused with ``MaintenanceMode`` and the reason. Reads, watches and renewals of leases go on.
        Keys expire and leases end at their time (spec/storage-format.md, section 12.4).

        Args:
            reason: 1 to 256 bytes without a control character, told to each caller whose change is refused. It takes
                the place of the reason of a maintenance that has begun.
            timeout: Seconds; the database's own unless given.

        Returns:
            The maintenance.

        Raises:
            InvalidArgument: The reason is empty, too long, or has a control character.
            PermissionDenied: The user may not do this.
        """
        return await self._call(ServerMethods.maintenance, ({"on": True, "reason": reason},), timeout)

    async def end_maintenance(self, *, timeout: Timeout = DEFAULT) -> Maintenance:
        """Have the store take changes again. Needs the permission ``admin``.

        Args:
            timeout: Seconds; the database's own unless given.

        Returns:
            That there is no maintenance.

        Raises:
            PermissionDenied: The user may not do this.
        """
        return await self._call(ServerMethods.maintenance, ({"on": False},), timeout)

    def backup(self, *, timeout: Timeout = DEFAULT) -> Backup:
        """Read a backup of the whole store as it is now: one revision, which the node keeps while the backup is read.

        A backup is encrypted, and ``haptera restore`` makes a data directory of it with the node's master key. Writes
        go on meanwhile. At the server a backup of which no piece is taken for 300 seconds ends with
        ``DeadlineExceeded``.

        Args:
            timeout: Seconds for the whole backup. Unless given, the wait for each piece is limited by the database's
                own timeout, and the whole backup by nothing.

        Returns:
            An asynchronous iterator of bytes.
        """
        end: StreamEnd[BackedUp] = StreamEnd()
        whole = None if timeout is DEFAULT else checked_timeout(timeout)
        piece = self._timeout if timeout is DEFAULT else None
        return Backup(self._channel.backup(end, piece, whole), end)
