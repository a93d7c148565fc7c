"""What users' tests and ours share."""

from __future__ import annotations

from haptera.testing.filesystem import Crashed, MemoryFile, MemoryFileSystem, Unsynced

__all__ = ["Crashed", "MemoryFile", "MemoryFileSystem", "Unsynced"]
