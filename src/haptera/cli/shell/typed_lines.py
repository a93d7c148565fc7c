"""The history of typed lines, in a file that its user alone can read, and without passwords."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from prompt_toolkit.history import FileHistory, InMemoryHistory

from haptera.cli import output
from haptera.client import has_password

#: Bytes of the file: some ten thousand lines. Of a larger one the newer half is kept.
FILE_SIZE_MAX: Final = 1024 * 1024
#: Characters of a line that is kept. A longer one holds a value that no one looks for by paging through lines.
LINE_LENGTH_MAX: Final = 4096


def history_path() -> Path:
    """The file: haptera/shell_history in the user's directory for state."""
    named = os.environ.get("XDG_STATE_HOME", "")
    state = Path(named) if os.path.isabs(named) else Path.home() / ".local" / "state"
    return state / "haptera" / "shell_history"


def is_kept(line: str) -> bool:
    """Whether a typed line goes into the history: it is no secret, not too long, and does not begin with a blank."""
    if line.startswith((" ", "\t")) or len(line) > LINE_LENGTH_MAX:
        return False
    words = line.split()
    if words[:1] == ["passwd"] or words[:2] == ["user", "add"]:
        return False  # a password may stand there by mistake
    return not any("://" in word and has_password(word.strip("'\"")) for word in line.replace("=", " ").split())


def open_history(path: Path) -> FileHistory | InMemoryHistory:
    """The history in a file, which is made where there is none. Where it cannot be used, lines are kept until the shell
    ends, and the reason is said.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "r+b") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                raise OSError(f"{path} is no file of this user")
            os.fchmod(descriptor, 0o600)
            _shorten(file)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home directory
        output.to_standard_error(f"haptera: the history is not kept: {output.shown(str(error))}")
        return InMemoryHistory()
    return TypedLines(str(path))


def _shorten(file: BinaryIO) -> None:
    """Keep the newer half of a file that is too large. An entry begins with an empty line and a comment."""
    if file.seek(0, os.SEEK_END) <= FILE_SIZE_MAX:
        return
    half = FILE_SIZE_MAX // 2
    file.seek(-half, os.SEEK_END)
    kept = file.read(half)
    begin = kept.find(b"\n\n# ")
    file.seek(0)
    file.truncate()
    file.write(kept[begin + 1 :] if begin >= 0 else b"")


class TypedLines(FileHistory):
    """The history in a file, with the lines that are kept there; the others are kept until the shell ends."""

    def store_string(self, string: str) -> None:
        """Keep a line. One that the file does not take is kept until the shell ends."""
        if is_kept(string):
            with suppress(OSError):
                super().store_string(string)
