"""The user on whose behalf commands are submitted, and all that it may do now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.state import Permits, denied

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.access_rules import NodePermission
    from haptera.errors import Failure
    from haptera.state import Access


class Submitter:
    """``user`` is the name, empty for an anonymous one. This one is unrestricted: it may do everything."""

    __slots__ = ("user",)

    def __init__(self, user: str = "") -> None:
        self.user: str = user

    @property
    def expires_at_ms(self) -> int | None:
        """The time, in Unix milliseconds, from which on it may do nothing; None where none is set."""
        return None

    def permits(self) -> Permits | None:
        """All that it may do now; None where that is everything. Another object comes when that changes."""
        return None

    def lacks(self, permission: NodePermission) -> Failure | None:
        """Return 2004 where the submitter may not do what is of the node as a whole."""
        permits = self.permits()
        return None if permits is None or permits.has(permission) else denied(permission)


class RestrictedSubmitter(Submitter):
    """A user of the store, or a token: it may do what its grants say. One that is unknown, removed, disabled or expired
    may do nothing.

    The permits are kept as long as ``access`` stays as it is, and those of a token until it expires by ``clock``, in
    Unix milliseconds. So a change of the grants counts for the next command, however old the connection is.
    """

    __slots__ = ("_access", "_clock", "_expires_at_ms", "_permits", "_revision")

    def __init__(self, user: str, access: Access, clock: Callable[[], int]) -> None:
        super().__init__(user)
        self._access = access
        self._clock = clock
        self._expires_at_ms: int | None = None
        self._permits: Permits | None = None
        self._revision = -1  # of no state

    @property
    def expires_at_ms(self) -> int | None:
        """The time at which the token expires."""
        return self._access.expires_at_ms(self.user)

    def permits(self) -> Permits | None:
        """All that the grants of now give; None for an administrator."""
        if self._revision != self._access.revision or (
            self._expires_at_ms is not None and self._expires_at_ms <= self._clock()
        ):
            self._revision = self._access.revision
            self._expires_at_ms = self.expires_at_ms
            self._permits = self._access.restriction(self.user, self._clock())
        return self._permits


class _Stranger(Submitter):
    """May do nothing."""

    __slots__ = ()

    def permits(self) -> Permits | None:
        """Nothing."""
        return Permits([])


#: The other side of a connection that has not proved who it is. It has a name that no user can have: the empty one may
#: do everything where a command is judged in the log.
STRANGER = _Stranger("\0")
#: The caller of an embedded store, and of a node without authentication.
ANONYMOUS = Submitter()
