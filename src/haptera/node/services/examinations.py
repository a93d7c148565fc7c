"""``server.doctor`` (spec/protocol.md 7.2): the weak settings of a node and of its data directory."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from haptera.errors import Code, failure
from haptera.node.weaknesses import Weakness, in_order, of_directory, of_process, of_secret_files, of_settings

if TYPE_CHECKING:
    from haptera.node.node import Node
    from haptera.peer import Request

#: Examinations at one time: each has a thread, and a disk that hangs gives none of them back.
EXAMINATIONS_MAX: Final = 2


class Examinations:
    """Answers the requests for the weaknesses of one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopped = False

    def add(self, request: Request) -> None:
        """Look for weaknesses, and answer with them."""
        if self._stopped:
            request.fail(failure(Code.SHUTTING_DOWN, outcome="not_applied"))
        elif len(self._tasks) >= EXAMINATIONS_MAX:
            details = {"examinations_max": EXAMINATIONS_MAX}
            request.fail(failure(Code.TOO_MANY_REQUESTS, details, outcome="not_applied"))
        else:
            task = asyncio.get_running_loop().create_task(self._examine(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def stop(self) -> None:
        """Begin none any more. The ones under way end by themselves."""
        self._stopped = True

    async def _examine(self, request: Request) -> None:
        node = self._node
        now_s = node.clock_ms() / 1000
        found = of_settings(node, now_s)
        found += await asyncio.get_running_loop().run_in_executor(None, _of_machine, node, now_s)
        request.respond(msgspec.msgpack.encode(in_order(found)))


def _of_machine(node: Node, now_s: float) -> list[Weakness]:
    found = [*of_process(), *of_secret_files(node.config)]
    path = node.data_dir
    try:
        return [*found, *of_directory(path, now_s)]
    except OSError as error:
        finding = f"{path} cannot be looked into: {error.strerror or error}"
        return [*found, Weakness("low", "directory_not_examined", finding, "see that the node may read its directory")]
