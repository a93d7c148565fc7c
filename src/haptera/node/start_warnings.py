"""The warnings of a node at its start: it works, but does or protects less than it could."""

from __future__ import annotations

import logging
import os
import stat
from typing import TYPE_CHECKING, Final

from haptera.storage import DIRECTORY_FORMAT

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.recovery import DurableState
    from haptera.storage import StoredKeyring

_logger = logging.getLogger(__name__)

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_WRITING_OTHERS: Final = stat.S_IWGRP | stat.S_IWOTH


def warn_at_start(config: NodeConfig, storage: DurableState) -> None:
    """Log each weakness of an open node."""
    _warn_of_directory(storage.directory.path)
    _warn_of_master_key(storage.directory.master_key_path, storage.keyring)
    if storage.migrated_from is not None:
        _logger.warning(
            "directory_migrated",
            extra={
                "from_format": storage.migrated_from,
                "to_format": DIRECTORY_FORMAT,
                "meaning": "older versions refuse this directory from now on",
            },
        )
    maintenance = storage.machine.node.maintenance
    if maintenance is not None:
        _logger.warning(
            "maintenance_goes_on",
            extra={
                "reason": maintenance.reason,
                "since_ms": maintenance.since_ms,
                "help": "haptera maintenance off takes changes again",
            },
        )
    if config.durability == "os":
        _logger.warning(
            "durability_os",
            extra={"meaning": "writes are answered before they are on the disk; a power failure can lose some of them"},
        )


def _warn_of_directory(path: str) -> None:
    if (mode := _mode(path)) & _WRITING_OTHERS:
        meaning = "others than its owner may change its files, or put others in their place"
        extra = {"path": path, "mode": oct(mode), "meaning": meaning, "help": f"chmod 700 {path}"}
        _logger.warning("directory_open_to_others", extra=extra)


def _warn_of_master_key(path: str, keyring: StoredKeyring) -> None:
    if keyring.generated:
        _logger.warning(
            "key_file_beside_data",
            extra={
                "file": path,
                "meaning": "any reader of this directory can read the data; copies without this file stay encrypted",
                "help": "for a key of your own stop it; haptera storage rotate-key DIR --new-master-key-file FILE",
            },
        )
        if (mode := _mode(path)) & _OTHERS:
            fields = {"path": path, "mode": oct(mode), "help": f"chmod 600 {path}"}
            _logger.warning("key_file_open_to_others", extra=fields)
    elif keyring.unused_files:
        _logger.warning(
            "unused_master_key",
            extra={
                "files": " ".join(keyring.unused_files),
                "meaning": "another master key opens this directory; these open backups that were made before",
                "help": "keep them where no one finds the backups, and not here",
            },
        )


def _mode(path: str) -> int:
    """A file's mode; 0 where the operating system does not have the file."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0
