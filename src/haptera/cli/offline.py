"""The parts that all commands which work on a data directory share: their options, their errors and exit codes."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from haptera.cli import output
from haptera.cli.exit_codes import DAMAGED, INTERRUPTED, USAGE
from haptera.cli.remedies import remedy
from haptera.errors import HapteraError, StorageError

if TYPE_CHECKING:
    from haptera.node import NodeConfig, Timeline
    from haptera.storage import Archive, Finding, MasterKey, Unlock


#: How a line of text calls each kind of finding.
FINDINGS: Final = {
    "damage": "damaged",
    "wrong_key": "no key",
    "newer_format": "newer format",
    "unreadable": "cannot be read",
    "torn_tail": "torn tail",
    "left_over": "left over",
}


class Offline:
    """The options of a command that works on a data directory, and how its work is run."""

    def __init__(self, as_json: bool, master_key_file: str | None, master_key_command: str | None) -> None:
        context = click.get_current_context()
        self.as_json = as_json
        #: The options of the master key that are on the command line itself. The environment may have those of a node.
        self.named_master_key: list[str] = [
            flag
            for flag, name in (("--master-key-file", "master_key_file"), ("--master-key-command", "master_key_command"))
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        ]
        self._master_key_file = master_key_file
        self._master_key_command = master_key_command

    def config(self, path: str) -> NodeConfig:
        """The configuration of the node that would open this directory."""
        from haptera.node import NodeConfig

        return NodeConfig(
            data_dir=path, master_key_file=self._master_key_file, master_key_command=self._master_key_command
        )

    def master_key(self) -> MasterKey | None:
        """The master key that was given; None where it is beside the data.

        Raises ConfigurationError for one that cannot be read.
        """
        from haptera.node import MasterKeySource

        return MasterKeySource(self.config(".")).read()

    @property
    def unlock(self) -> Unlock:
        """Opens the keyring of a directory. Raises ConfigurationError for a master key that cannot be read."""
        from haptera.storage import open_keyring

        master = self.master_key()
        return lambda directory: open_keyring(directory, master)

    def timeline(self, path: str, archive: ArchiveOption) -> Timeline:
        """The history of a data directory or a backup, with that of an archive."""
        from haptera.node import Timeline
        from haptera.storage import OsFileSystem, find_source

        return Timeline.of(find_source(OsFileSystem(), path, archive.find(), self.master_key()))

    def target(self, path: str) -> NodeConfig:
        """The configuration of the node that would open a directory to be made. Raises StorageError if it is filled."""
        from haptera.storage import NewDirectory, OsFileSystem

        NewDirectory.refuse_filled(OsFileSystem(), path)
        return self.config(path)

    def run(self, path: str, work: Callable[[], int]) -> int:
        """Do the work on the directory or the backup at ``path``, and return the exit code that it returns or that its
        error stands for.
        """
        # The tools report what a node would log.
        logging.getLogger("haptera").addHandler(logging.NullHandler())
        try:
            return work()
        except HapteraError as error:
            code = exit_code(error)
            fields = {"name": error.name, "message": str(error)}
            output.error(str(error), fields, code, help_=remedy(error, path))
            return code
        except KeyboardInterrupt:
            return INTERRUPTED


def exit_code(error: BaseException) -> int:
    """The exit code for the trouble with a data directory: that of serve, and `USAGE` where there is none."""
    from haptera.cli import serve
    from haptera.node import NothingWhole

    if isinstance(error, NothingWhole):
        return DAMAGED
    return USAGE if type(error) is StorageError else serve.exit_code(error)


def finding_line(finding: Finding) -> str:
    """A finding as a line of text."""
    place = f"{finding.file} at byte {finding.offset}"
    return f"{FINDINGS[finding.kind]}: {place}: expected {finding.expected}, found {finding.actual}"


def offline_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of all these commands to one, which gets an `Offline` as ``offline``."""

    @click.option(
        "--master-key-file",
        metavar="FILE",
        envvar="HAPTERA_MASTER_KEY_FILE",
        help="The master key of the directory: 32 bytes, or 64 hex digits. HAPTERA_MASTER_KEY can hold the digits.",
    )
    @click.option(
        "--master-key-command",
        metavar="COMMAND",
        envvar="HAPTERA_MASTER_KEY_COMMAND",
        help="A command that writes the master key to its standard output.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Write the result as JSON.")
    @functools.wraps(function)
    def wrapper(as_json: bool, master_key_file: str | None, master_key_command: str | None, **arguments: Any) -> int:
        return function(offline=Offline(as_json, master_key_file, master_key_command), **arguments)

    return wrapper


class ArchiveOption:
    """The archive that a command reads beside a directory or a backup, if one is given, and the master keys of it."""

    def __init__(self, path: str | None, key_files: Sequence[str], key_commands: Sequence[str]) -> None:
        self._path = path
        self._key_files = key_files
        self._key_commands = key_commands

    def find(self) -> Archive | None:
        """The archive. Raises ConfigurationError for a master key that cannot be read, and as `Archive.find`."""
        from haptera.node import MasterKeyCommand, read_master_key_file
        from haptera.storage import Archive, OsFileSystem

        if self._path is None:
            if self._key_files or self._key_commands:
                raise click.UsageError("a master key of an archive is given, and no --archive-dir")
            return None
        masters = [read_master_key_file(path) for path in self._key_files]
        masters += [MasterKeyCommand(each, "--archive-master-key-command").read() for each in self._key_commands]
        return Archive.find(OsFileSystem(), self._path, masters)


def archive_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add the options of an archive to a command, which gets an `ArchiveOption` as ``archive``."""

    @click.option(
        "--archive-dir", metavar="ARCHIVE", help="The archive of the same node: its segments are read as well."
    )
    @click.option(
        "--archive-master-key-file",
        "key_files",
        metavar="FILE",
        multiple=True,
        help="A master key that the node had later or earlier: it opens keyrings of the archive that --master-key-file "
        "does not. May be given several times.",
    )
    @click.option(
        "--archive-master-key-command",
        "key_commands",
        metavar="COMMAND",
        multiple=True,
        help="The same from the standard output of a command.",
    )
    @functools.wraps(function)
    def wrapper(
        archive_dir: str | None, key_files: Sequence[str], key_commands: Sequence[str], **arguments: Any
    ) -> int:
        return function(archive=ArchiveOption(archive_dir, key_files, key_commands), **arguments)

    return wrapper


def target_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add ``--target`` to a command that makes a data directory."""
    return click.option(
        "--target", required=True, metavar="TARGET", help="The data directory to make; it must not exist, or be empty."
    )(function)
