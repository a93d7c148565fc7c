"""Dialling as in RFC 8305: of all addresses of all hosts the first to take a connection is used.

An attempt that has neither succeeded nor failed after 250 ms is joined by the next one, so that an address that
swallows SYNs costs a call 250 ms and not its whole time. Names are resolved together. A host that is still being
resolved is passed over, and tried as soon as its addresses are known. Of each host two addresses are tried, one of each
family where it has both, before the next host has its turn; the rest follow in further rounds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from haptera.errors import ConnectionLost
from haptera.transport.address import Place, format_place
from haptera.transport.bind_sockets import reason_of
from haptera.transport.limits import ADDRESSES_MAX, ATTEMPT_DELAY_S
from haptera.transport.loop_network import network_here

if TYPE_CHECKING:
    from haptera.transport.lookups import AddressInfo

#: Addresses of one host that are tried before the next host has its turn: one of each family.
_ADDRESSES_PER_TURN: Final = 2


T = TypeVar("T")

#: Connects to one address (the second argument) of a host (the first). Raises ``OSError``.
Attempt = Callable[[Place, Place], Coroutine[Any, Any, T]]


async def connect_first(
    places: Sequence[Place], attempt: Attempt[T], timeout: float | None, *, discard: Callable[[T], None]
) -> T:
    """Return the first connection to any of ``places``, preferring them in their order.

    ``discard`` closes a connection that was opened in the moment in which another one had won.

    Raises ``ConnectionLost`` (outcome ``not_applied``), which says of each place why it failed, when all have failed or
    after ``timeout`` seconds.
    """
    race = _Race(places, attempt, discard)
    try:
        async with asyncio.timeout(timeout):
            return await race.run()
    except TimeoutError as error:
        raise race.failure("it took too long") from error


class _Host:
    """One place of a race. ``addresses`` are still to be tried, None while they are not known."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.addresses: deque[Place] | None = None if _needs_resolving(place) else deque((place,))
        self.tried = 0
        self.reasons: dict[str, None] = {}
        self.cause: Exception | None = None

    def fail(self, error: Exception) -> None:
        self.reasons[reason_of(error)] = None
        self.cause = error

    async def resolve(self) -> None:
        """Learn the addresses of the name; a name without any has failed."""
        assert not isinstance(self.place, str)  # a path is its own address
        host, port = self.place
        self.addresses = deque()
        try:
            infos = await network_here().look_up(host, port)
        except (OSError, UnicodeError) as error:
            self.fail(error)
        else:
            self.addresses.extend(_interleaved(infos))


class _Race(Generic[T]):
    """Attempts under way, and the hosts they belong to."""

    def __init__(self, places: Sequence[Place], attempt: Attempt[T], discard: Callable[[T], None]) -> None:
        self._hosts = [_Host(place) for place in places]
        self._attempt = attempt
        self._discard = discard
        self._attempts: dict[asyncio.Task[T], _Host] = {}  # in the order in which they began
        self._resolving: set[asyncio.Task[None]] = set()

    async def run(self) -> T:
        loop = asyncio.get_running_loop()
        try:
            await self._resolve()
            next_at = loop.time()
            while True:
                if not self._attempts or loop.time() >= next_at:
                    self._begin_next()
                    next_at = loop.time() + ATTEMPT_DELAY_S
                if not self._attempts and not self._resolving:
                    raise self.failure()
                more = any(host.addresses for host in self._hosts)
                done, _ = await asyncio.wait(
                    {*self._attempts, *self._resolving},
                    timeout=max(0.0, next_at - loop.time()) if more else None,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                self._resolving.difference_update(done)
                for task in [task for task in self._attempts if task in done]:
                    error = task.exception()
                    if error is None:
                        return self._win(task)
                    if not isinstance(error, OSError):
                        raise error
                    self._attempts.pop(task).fail(error)
                    next_at = loop.time()
        finally:
            for resolving in self._resolving:
                resolving.cancel()
            for task in self._attempts:
                task.cancel()
                task.add_done_callback(self._close_loser)

    def failure(self, otherwise: str = "it has no address") -> ConnectionLost:
        """Return why no place was reached; ``otherwise`` is told of places without a reason."""
        said = [
            f"cannot connect to {format_place(host.place)}: {', '.join(host.reasons) or otherwise}"
            for host in self._hosts
        ]
        error = ConnectionLost("; ".join(dict.fromkeys(said)), outcome="not_applied")
        error.__cause__ = next((host.cause for host in reversed(self._hosts) if host.cause is not None), None)
        return error

    async def _resolve(self) -> None:
        """Begin to resolve all names; the first host has a moment before others are preferred to it."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(host.resolve()) for host in self._hosts if host.addresses is None]
        self._resolving.update(tasks)
        if self._hosts[0].addresses is None:
            await asyncio.wait(tasks[:1], timeout=ATTEMPT_DELAY_S)
            self._resolving -= {task for task in tasks if task.done()}

    def _begin_next(self) -> None:
        ready = [host for host in self._hosts if host.addresses]
        if not ready:
            return
        host = min(ready, key=lambda each: each.tried // _ADDRESSES_PER_TURN)
        assert host.addresses  # it is ready
        host.tried += 1
        attempt = self._attempt(host.place, host.addresses.popleft())
        self._attempts[asyncio.get_running_loop().create_task(attempt)] = host

    def _win(self, task: asyncio.Task[T]) -> T:
        del self._attempts[task]
        return task.result()

    def _close_loser(self, task: asyncio.Task[T]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._discard(task.result())


def _needs_resolving(place: Place) -> bool:
    if isinstance(place, str):
        return False
    import ipaddress  # noqa: PLC0415  # it takes a millisecond, and a Unix socket has no address

    try:
        ipaddress.ip_address(place[0])
    except ValueError:
        return True
    return False


def _interleaved(infos: Iterable[AddressInfo]) -> list[Place]:
    """Return the addresses that a name has, its families in turn, each in the resolver's order."""
    families: dict[int, dict[Place, None]] = {}
    for family, _, _, _, address in infos:
        host, port, *more = address
        scope = f"%{more[1]}" if len(more) > 1 and more[1] and "%" not in host else ""
        families.setdefault(family, {})[f"{host}{scope}", port] = None
    turns = zip_longest(*families.values())
    return [place for turn in turns for place in turn if place is not None][:ADDRESSES_MAX]
