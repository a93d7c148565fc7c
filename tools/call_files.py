"""Names the files that a call passes, on both sides, in the order in which it enters them.

usage: python -m tools.call_files echo            an echo between two peers
       python -m tools.call_files set             `db.set` of a served store, from the client to the log and back
       python -m tools.call_files echo --count    the number of files alone

Both sides are in this process, connected in memory, and some calls are made before the one that is written down: it is
a call of every day, not the handshake, and not the first, from which much is remembered. The files of `haptera.testing`
stand for the socket and are not counted, nor is the service.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import haptera
from haptera.testing import connected_peers, node
from haptera.testing.clock import run

if TYPE_CHECKING:
    from types import FrameType

SOURCE: Final = Path(haptera.__file__).parent
#: Calls before the one that counts. The handshake is done by then, routes and metadata are known, and each side has
#: sent its early grease (spec/protocol.md, section 2.3). One change in eight says which answers were read: not it.
WARM_UP: Final = 43

#: The functions that ran, in their order, by the file that they stand in.
Passed = dict[str, dict[str, None]]


class Echo(haptera.Service):
    """Answers with what it was asked."""

    name = "echo"

    @haptera.method
    async def echo(self, request: haptera.Request) -> bytes:
        """Return the payload."""
        return request.payload


async def observe(call: Callable[[], Awaitable[Any]]) -> Passed:
    """Return the files that a call passes once it has been made often."""
    files: Passed = defaultdict(dict)

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(SOURCE) and path.relative_to(SOURCE).parts[0] != "testing":
                files[path.relative_to(SOURCE).as_posix()][frame.f_code.co_qualname] = None

    for _ in range(WARM_UP):
        await call()
    sys.setprofile(note)
    try:
        await call()
    finally:
        sys.setprofile(None)
    return files


async def echo_files() -> Passed:
    """Return the files that an echo passes."""
    async with connected_peers(acceptor_services=[Echo()]) as (peer, _):
        return await observe(lambda: peer.call("echo", "echo", b"hello"))


async def set_files() -> Passed:
    """Return the files that `db.set` passes. The virtual clock's node writes on the loop's thread, where it is seen."""
    async with node(storage="memory") as url, haptera.connect(url) as db:
        return await observe(lambda: db.set("config/env", "prod"))


CALLS: Final = {"echo": echo_files, "set": set_files}


def main(argv: list[str] | None = None) -> int:
    """Print the files; return the exit status."""
    parser = argparse.ArgumentParser(description="Names the files that a call passes, in order, on both sides.")
    parser.add_argument("call", choices=CALLS, help="which call")
    parser.add_argument("--count", action="store_true", help="print the number of files alone")
    options = parser.parse_args(argv)
    files = run(CALLS[options.call]())
    if options.count:
        print(len(files))
        return 0
    for number, (path, functions) in enumerate(files.items(), 1):
        print(f"{number:2} {path}: {', '.join(functions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
