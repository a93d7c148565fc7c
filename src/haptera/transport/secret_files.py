"""Files that hold a secret: read whole, bounded, and warned of where others than their owner may read them."""

from __future__ import annotations

import logging
import os
import stat
from functools import partial
from typing import Final

from haptera.errors import ConfigurationError

#: A longer secret is a file that was named by mistake.
SECRET_FILE_SIZE_MAX: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_logger = logging.getLogger("haptera.transport")


def read_secret_file(
    path: str | os.PathLike[str], name: str, form: str = "", *, size_max: int = SECRET_FILE_SIZE_MAX
) -> bytes:
    """Return the content of a file that holds a secret of at most ``size_max`` bytes.

    ``name`` is how errors call the file, and ``form`` says in them what it should hold. There is a warning in the log
    if the file's mode lets others than its owner at it. Raises ``ConfigurationError``, which shows nothing of the
    content.
    """
    secret, mode = read_file(path, name, form, size_max=size_max)
    warn_of_mode(path, mode)
    return secret


def warn_of_mode(path: str | os.PathLike[str], mode: int) -> None:
    """Log a warning if the mode of a secret's file lets others than its owner at it."""
    if mode & _OTHERS:
        shown = os.fspath(path)
        fields = {"path": shown, "mode": oct(stat.S_IMODE(mode)), "help": f"chmod 600 {shown}"}
        _logger.warning("key_file_open_to_others", extra=fields)


def read_file(path: str | os.PathLike[str], name: str, form: str = "", *, size_max: int) -> tuple[bytes, int]:
    """Return the content of a regular file of at most ``size_max`` bytes, and its mode. Errors are as those of
    ``read_secret_file``.
    """
    because = partial(unusable, name, path, form=form)
    try:
        # Not waiting for the other end of a pipe, nor taking a terminal.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise because(getattr(error, "strerror", None) or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise because("it is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file")
        content = os.read(descriptor, size_max + 1)
    except OSError as error:
        raise because(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if len(content) > size_max:
        raise because(f"it has more than {size_max} bytes")
    return content, status.st_mode


def unusable(name: str, path: str | os.PathLike[str], reason: str, *, form: str = "") -> ConfigurationError:
    """Return the error for a file that cannot be used."""
    return ConfigurationError(f"the {name} {os.fspath(path)} cannot be used: {reason}{form and f'; {form}'}")
