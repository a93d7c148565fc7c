"""A history of many clients of one node, with faults between them.

The clients reach the node through two proxies, each of which may be damaged, cut, frozen or closed by itself: what a
client has sent on one and given up may still arrive when the other has brought the repetition.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Final, Protocol

import haptera
from haptera.testing import proxy
from haptera.wire.frame import HEADER_SIZE
from tests.linearizability.history import History
from tests.linearizability.log import Log
from tests.linearizability.workload import Workload

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from haptera.testing import Proxy

CLIENTS_MAX: Final = 3
#: Calls of one client that may be under way together.
CALLERS_MAX: Final = 6

OPERATIONS: Final = 100
REPEATED: Final = 2
FAULTS: Final = 24
FAULT_EVERY_S: Final = 0.008
LATENCY_S: Final = 0.001
#: Faults between the clients and the node. A node has kinds of its own.
KINDS: Final = ("damage", "cut", "freeze", "refuse", "slow", "cancel")

#: Changes of each client before the faults begin: so that some say in the midst of them which answers have been read
#: (spec/protocol.md, section 2.3).
WARM_UP_MAX: Final = 33

#: Bytes of a connection, from the next frame on, within which damage falls anywhere: some frames.
ANYWHERE: Final = 400

#: Bytes of the next frame's body within which damage is aimed: as many as any has.
BODY_SIZE: Final = 24


class Node(Protocol):
    """A node whose process and disk change while its address stays. Its kinds of faults are methods of these names."""

    url: str
    kinds: Sequence[str]
    #: The longest time of a freeze in seconds; one of them is chosen each time.
    freezes_s: Sequence[float]

    #: Seconds after the last operation within which late bytes arrive.
    late_s: float

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class Faults:
    """Does to a node and its proxies what a seed chooses."""

    def __init__(self, node: Node, proxies: list[Proxy], workload: Workload, choices: random.Random) -> None:
        self._node = node
        self._proxies = proxies
        self._workload = workload
        self._choices = choices
        self.done: list[str] = []

    async def go_on(self) -> None:
        """Make one fault after the other. Each ends by itself, so that the node can be reached at the end."""
        kinds = (*KINDS, *self._node.kinds)
        # Each run has its own mixture, because faults of all kinds together leave little time for the effects of one.
        weights = [self._choices.choice((0, 0, 1, 4)) for _ in kinds]
        weights[0] += 2
        for _ in range(FAULTS):
            await asyncio.sleep(self._choices.uniform(0.0, FAULT_EVERY_S))
            kind = self._choices.choices(kinds, weights)[0]
            self.done.append(kind)
            if kind in KINDS:
                await getattr(self, f"_{kind}")(self._choices.choice(self._proxies))
            else:
                await getattr(self._node, kind)()

    async def _damage(self, between: Proxy) -> None:
        direction = self._choices.choice((between.to_acceptor, between.to_dialer))
        if direction._lanes:
            lane = self._choices.choice(list(direction._lanes))
            # Damage of a header ends its connection. That of a body is an error of one call, and the others go on.
            begin, size = (HEADER_SIZE, BODY_SIZE) if self._choices.random() < 0.8 else (0, ANYWHERE)
            offset = lane.offset + lane.size + begin + self._choices.randrange(size)
            direction.corrupt(at=offset, bit=self._choices.randrange(8))

    async def _cut(self, between: Proxy) -> None:
        between.sever()

    async def _freeze(self, between: Proxy) -> None:
        direction: Any = self._choices.choice(("to_acceptor", "to_dialer", None))
        between.pause(direction)
        await asyncio.sleep(self._choices.uniform(0.0, self._choices.choice(self._node.freezes_s)))
        between.resume(direction)

    async def _refuse(self, between: Proxy) -> None:
        between.refuse()
        await self._workload.pause(0.05)
        await between.accept()

    async def _slow(self, between: Proxy) -> None:
        longest = self._choices.choice((LATENCY_S, 2 * LATENCY_S, 20 * LATENCY_S))
        between.delay(lambda: self._choices.uniform(0.0, longest))

    async def _cancel(self, _: Proxy) -> None:
        self._workload.cancel_one()


async def record(node: Node, choices: random.Random) -> tuple[History, list[str]]:
    """A history of a new node under faults, and their kinds in order."""
    history = History()
    workload = Workload(history, choices)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(node.stop)
        await node.start()
        proxies = [await stack.enter_async_context(proxy(node.url)) for _ in range(2)]
        for each in proxies:
            each.delay(lambda: choices.uniform(0.0, LATENCY_S))
        urls = [each.url for each in proxies]
        dbs = [
            await stack.enter_async_context(haptera.connect(_url_of(choices.sample(urls, 2))))
            for _ in range(choices.randint(1, CLIENTS_MAX))
        ]
        peers = await stack.enter_async_context(_Peers(urls, choices))
        log = history.log = Log(history, choices.choice(dbs))
        await stack.enter_async_context(log)
        for db in dbs:
            await workload.warm_up(db, choices.randrange(WARM_UP_MAX))
        faults = Faults(node, proxies, workload, choices)
        callers = dbs * choices.randint(1, CALLERS_MAX)
        async with asyncio.TaskGroup() as group:
            group.create_task(faults.go_on())
            group.create_task(workload.repeater(peers.dial, REPEATED))
            for db in callers:
                group.create_task(workload.client(db, OPERATIONS // len(callers)))
        await asyncio.sleep(node.late_s)
        async with haptera.connect(node.url) as observer:
            await log.reach(await workload.observe(observer))
    return history, faults.done


def _url_of(urls: list[str]) -> str:
    """One URL of several hosts. A Unix socket has no others."""
    if urls[0].startswith("haptera+unix:"):
        return urls[0]
    return f"haptera://{','.join(url.partition('://')[2] for url in urls)}"


class _Peers:
    """Connections for requests that are sent more than once: each on another one, through any of the proxies."""

    def __init__(self, urls: list[str], choices: random.Random) -> None:
        self._urls = urls
        self._choices = choices
        self._open: list[haptera.Peer] = []

    async def dial(self) -> haptera.Peer:
        self._open.append(await haptera.dial(self._choices.choice(self._urls)))
        return self._open[-1]

    async def __aenter__(self) -> _Peers:
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self._open:
            await peer.aclose()
