"""The block of ``async with`` in which a program holds its place in a line, and which ends with that."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from haptera.client.calls.argument_checks import Value, checked_int, plain_value, ttl_ms_of
from haptera.client.recipes.interruption import Interruption
from haptera.client.recipes.line_place import LinePlace, is_full, take_place
from haptera.errors import LockLost, WaitTimeout
from haptera.key_rules import LEASE_TTL_MAX_MS, LEASE_TTL_MIN_MS, VERSION_MAX

if TYPE_CHECKING:
    from types import TracebackType

    from haptera.client.database import Database
    from haptera.client.recipes.line import LineFollowers
    from haptera.peer import Timeout


class Holding:
    """Something that a program holds: a lock, a leadership, a permit. Entering the claim to it gives it."""

    __slots__ = ("_place",)

    def __init__(self, place: LinePlace) -> None:
        self._place = place

    @property
    def token(self) -> int:
        """The fencing token, to be passed as ``fence=`` to the changes that are made in its name. A later
        holder has a higher one.
        """
        return self._place.token

    @property
    def held(self) -> bool:
        """Whether it is certainly held at this moment, by the clock."""
        return self._place.held

    @property
    def lost(self) -> Awaitable[LockLost | None]:
        """``await lock.lost`` waits for its end, and gives the error that says why it was lost, or None where it was
        given up.
        """
        return self._place.lost

    def __repr__(self) -> str:
        return f"<haptera.recipes.Holding {self.token}, {'held' if self.held else 'ended'}>"


class HeldBlock:
    """A claim to one of the ``limit`` first places of a line: ``async with`` waits for it and gives a `Holding`.

    A claim is for one holder at a time; each task makes its own.
    """

    __slots__ = (
        "_db",
        "_entered",
        "_interruption",
        "_limit",
        "_lines",
        "_name",
        "_place",
        "_timeout",
        "_ttl",
        "_value",
        "_wait",
    )

    def __init__(
        self,
        db: Database,
        lines: LineFollowers,
        name: str,
        limit: int,
        value: Value | None,
        ttl: float,
        wait: float | None,
        timeout: Timeout,
    ) -> None:
        if wait is not None and not wait >= 0:
            raise ValueError(f"wait is a number of seconds, 0 or above, not {wait}")
        ttl_ms_of(ttl, LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS)
        self._db = db
        self._lines = lines
        self._name = name
        self._limit = checked_int("limit", limit, 1, VERSION_MAX)
        self._value = _this_process() if value is None else bytes(plain_value(value))
        self._ttl = ttl
        self._wait = wait
        self._timeout: Timeout = timeout
        self._entered = False
        self._place: LinePlace | None = None
        self._interruption: Interruption | None = None

    async def __aenter__(self) -> Holding:
        if self._entered:
            raise RuntimeError(f"the claim to {self._name} is entered already: make one for each holder")
        self._entered = True
        try:
            self._place = await self._await_turn()
        except BaseException:
            self._entered = False
            raise
        self._interruption = Interruption()
        self._place.when_lost = self._interruption.interrupt
        return Holding(self._place)

    async def _await_turn(self) -> LinePlace:
        if self._wait == 0 and await is_full(self._db, self._name, self._limit, self._timeout):
            raise WaitTimeout(f"{self._name} is held by others")
        place = await take_place(self._db, self._lines, self._name, self._value, self._limit, self._ttl, self._timeout)
        try:
            await place.turn(self._wait)
        except BaseException:
            await place.leave()
            raise
        return place

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        place, interruption = self._place, self._interruption
        assert place is not None
        assert interruption is not None
        place.when_lost = None
        loss = place.loss
        ours = interruption.ends(kind)
        self._place = self._interruption = None
        try:
            await place.leave()
        finally:
            self._entered = False
        if ours and loss is not None:
            raise loss


def _this_process() -> bytes:
    return f"{socket.gethostname()} {os.getpid()}".encode()
