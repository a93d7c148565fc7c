"""Rotation of the keys of an open node: another data key, or another master key (spec/storage.md, "The key").

Both change the files of keys on the writer's thread, between two entries, and nothing else writes there meanwhile.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from haptera.errors import ConfigurationError
from haptera.node.master_key import Origin
from haptera.storage import DiskFull

if TYPE_CHECKING:
    from haptera.node.commit import CommitPipeline
    from haptera.node.recovery import DurableState

__all__ = ["CurrentKeys", "KeyRotation"]


class CurrentKeys(msgspec.Struct, frozen=True):
    """The ids of the keys that are in use now, 8 bytes each, and where the master key is from."""

    data_key: bytes
    master_key: bytes
    origin: Origin


class KeyRotation:
    """Changes the keys of one node, one change at a time."""

    def __init__(self, storage: DurableState, pipeline: CommitPipeline) -> None:
        self._storage = storage
        self._pipeline = pipeline
        self._changing = asyncio.Lock()

    @property
    def busy(self) -> bool:
        """Whether a change is under way."""
        return self._changing.locked()

    async def rotate_data_key(self) -> CurrentKeys:
        """Make a data key for all that is written from now on: the segment that is appended to ends here.

        Raises StorageError, with the keys as they were; DiskFailed also where the log takes no more writes.
        """
        async with self._changing:
            await self._pipeline.on_writer(self._rotate)
            return self._current()

    async def change_master_key(self) -> CurrentKeys:
        """Put the data keys under the master key that the node's source gives now; a generated one is made again.

        Raises ConfigurationError (the source gives no key, or the same one) and StorageError.
        """
        source, keyring = self._storage.master_key_source, self._storage.keyring
        async with self._changing:
            # In a thread: a command may take its time.
            new = await asyncio.get_running_loop().run_in_executor(None, source.read)
            if new is None:
                await self._pipeline.on_writer(keyring.change_generated_master)
            elif new.id == keyring.master.id:
                raise ConfigurationError(
                    f"the master key is still {new.id.hex()}: its source has to give the new one first"
                )
            else:
                await self._pipeline.on_writer(lambda: keyring.change_master(new))
            return self._current()

    def stop(self) -> None:
        """End a wait for the source of the master key: the node is stopping."""
        self._storage.master_key_source.stop()

    def _rotate(self) -> None:
        self._storage.keyring.rotate()
        with suppress(DiskFull):  # the key is there, and the segment after this one gets it
            self._storage.log.roll()

    def _current(self) -> CurrentKeys:
        keyring = self._storage.keyring
        return CurrentKeys(keyring.newest.id, keyring.master.id, self._storage.master_key_source.origin)
