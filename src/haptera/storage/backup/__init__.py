"""Backups: a stream of the files of a data directory at one revision (storage-format 10).

*format* has the bytes, *writer* makes a stream, *reader* checks one from its beginning to its end, and *image* reads
the files of one that is in a file. *unpack* puts them into a directory, with those of an archive behind them.
"""

from __future__ import annotations

from haptera.storage.backup.format import BackupFile, Manifest
from haptera.storage.backup.image import BackupImage
from haptera.storage.backup.reader import BackupReader
from haptera.storage.backup.unpack import ArchivedSegments, unpack
from haptera.storage.backup.writer import BackupWriter

__all__ = ["ArchivedSegments", "BackupFile", "BackupImage", "BackupReader", "BackupWriter", "Manifest", "unpack"]
