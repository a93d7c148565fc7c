"""The error of a snapshot that was not made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.errors import StorageError

if TYPE_CHECKING:
    from haptera.node.snapshots.messages import Failed


class SnapshotNotMade(StorageError):
    """A snapshot could not be made. The log has everything, and the node goes on.

    ``found`` is what the maker of the snapshot said of it, if it said anything.
    """

    def __init__(self, reason: str, found: Failed | None = None) -> None:
        super().__init__(f"no snapshot was made: {reason}")
        self.reason = reason
        self.found = found


class SnapshotRefused(SnapshotNotMade):
    """There is not enough memory for a second process that holds the state once more. Sizes in bytes."""

    def __init__(self, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(f"it needs {needed_bytes} bytes of memory, and {available_bytes} are available")
        self.needed_bytes = needed_bytes
        self.available_bytes = available_bytes
