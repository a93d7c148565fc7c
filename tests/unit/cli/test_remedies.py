"""Each refusal of a directory, a backup or an archive has a next step, and the step fits where the error was met."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from haptera.cli.remedies import remedy
from haptera.errors import (
    ConfigurationError,
    CorruptionError,
    DamagedBackup,
    DirectoryInUse,
    ForeignArchive,
    MissingKey,
    NewerFormat,
    OutdatedCopy,
    StorageError,
    WrongKey,
)
from haptera.node import ApplyFailed, NothingWhole

if TYPE_CHECKING:
    from pathlib import Path


def of_system(number: int) -> StorageError:
    """The error of a call that the operating system refuses."""
    error = StorageError("cannot write")
    error.__cause__ = OSError(number, os.strerror(number))
    return error


@pytest.mark.parametrize(
    ("error", "step"),
    [
        (DirectoryInUse("data", 7), "stop that process"),
        (CorruptionError("data/log", 0, "a", "b"), "`haptera storage verify {path}` names every fault"),
        (CorruptionError("data/log", 0, "a", "b"), "`haptera storage salvage {path} --target NEW`"),
        (CorruptionError("data/log", 0, "a", "b"), "`haptera restore FILE --data-dir NEW`"),
        (NothingWhole("nothing"), "`haptera restore FILE --data-dir NEW`"),
        (DamagedBackup("b", 0, "a", "b"), "take another backup"),
        (WrongKey("data/keys", "aa", "bb", "master key"), "give the master key aa with --master-key-file FILE"),
        (WrongKey("data/log/1.seg", "aa", "bb"), "bring back the file `keys`"),
        (MissingKey("data/master.key"), "HAPTERA_MASTER_KEY or --master-key-command COMMAND"),
        (MissingKey("a.backup"), "--master-key-file FILE"),
        (MissingKey("data/keys"), "bring back the file `keys`"),
        (NewerFormat("data/node.toml", 9, 2), "or a later one"),
        (OutdatedCopy("data/log", "a", "b"), "bring back the whole directory"),
        (ApplyFailed(7, ValueError("x")), "`haptera storage salvage {path} --target NEW`"),
        (ForeignArchive("archive", "aa", "bb"), "name the archive of node aa"),
        (of_system(errno.EACCES), "as the user that owns the directory"),
        (of_system(errno.EROFS), "mount the disk"),
        (of_system(errno.ENOSPC), "make room"),
        (PermissionError(errno.EPERM, "no"), "as the user that owns the directory"),
    ],
)
def test_a_refusal_names_the_next_step(error: BaseException, step: str, tmp_path: Path) -> None:
    assert step.format(path=tmp_path) in remedy(error, str(tmp_path))


@pytest.mark.parametrize("error", [ConfigurationError("no such option"), StorageError("there is no data directory")])
def test_an_error_that_says_all_itself_has_none(error: BaseException, tmp_path: Path) -> None:
    assert remedy(error, str(tmp_path)) == ""


def test_damage_beside_a_backup_is_not_for_the_tools_of_directories(tmp_path: Path) -> None:
    """It is met in the archive, which `haptera storage verify` does not read."""
    found = remedy(CorruptionError("archive/log/1.seg", 0, "a", "b"), str(tmp_path / "a.backup"))
    assert "haptera storage" not in found
    assert "--archive-dir" in found


def test_what_a_failure_leaves_behind_is_named(tmp_path: Path) -> None:
    error = StorageError("it fails")
    error.add_note("remove what is left of new")
    assert remedy(error, str(tmp_path)) == "remove what is left of new"
