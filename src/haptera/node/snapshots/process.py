"""The second process: ``python -m haptera.node.snapshots.process DIR``, started by a node for one snapshot.

It goes behind the node first and keeps its pace, and then imports what it works with: that takes a fifth of a second of
a processor, which callers of the node would wait for otherwise.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from haptera.node.snapshots.pacing import keep_pace
from haptera.node.snapshots.priority import go_behind


def main(path: str) -> NoReturn:
    """Make the snapshot that standard input orders, in the data directory `path`, and end the process."""
    go_behind()
    keep_pace()
    from haptera.node.snapshots.ordered_snapshot import carry_out  # noqa: PLC0415  # see above

    carry_out(path)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m haptera.node.snapshots.process DIR")
    main(sys.argv[1])
