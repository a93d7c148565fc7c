"""Names the files that an echo call passes, on both sides, from the caller's `call` to its return.

usage: python -m tools.echo_files              the files, with the functions that run in each
       python -m tools.echo_files --count      their number alone

Two peers are connected in memory, and a few calls are made first: what is written down is a call of every day, not the
handshake, and not what is remembered from the first call on. The files of `haptera.testing` stand for the socket and
are not counted, nor is the service.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import haptera
from haptera.testing import connected_peers

if TYPE_CHECKING:
    from types import FrameType

SOURCE: Final = Path(haptera.__file__).parent
#: Calls before the one that counts: routes and metadata are known by then, and the handshake is done.
WARM_UP: Final = 5

Passed = dict[str, dict[str, None]]
"""The functions that ran, in their order, by the file that they stand in."""


class Echo(haptera.Service):
    """Answers with what it was asked."""

    name = "echo"

    @haptera.method
    async def echo(self, request: haptera.Request) -> bytes:
        """Return the payload."""
        return request.payload


async def passed() -> Passed:
    """Return what an echo call passes."""
    files: Passed = defaultdict(dict)

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(SOURCE) and path.relative_to(SOURCE).parts[0] != "testing":
                files[str(path.relative_to(SOURCE))][frame.f_code.co_qualname] = None

    async with connected_peers(acceptor_services=[Echo()]) as (peer, _):
        for _ in range(WARM_UP):
            await peer.call("echo", "echo", b"warm")
        sys.setprofile(note)
        try:
            await peer.call("echo", "echo", b"hello")
        finally:
            sys.setprofile(None)
    return files


def main(argv: list[str] | None = None) -> int:
    """Print the files; return the exit status."""
    parser = argparse.ArgumentParser(description="Names the files that an echo call passes, on both sides.")
    parser.add_argument("--count", action="store_true", help="print the number of files alone")
    options = parser.parse_args(argv)
    files = asyncio.run(passed())
    if options.count:
        print(len(files))
        return 0
    for number, (path, functions) in enumerate(files.items(), 1):
        print(f"{number:2} {path}: {', '.join(functions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
