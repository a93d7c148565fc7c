"""Files that hold a secret: a pre-shared key (spec/protocol.md, section 5.2), or a secret of another form."""

from __future__ import annotations

import logging
import os
import stat
from functools import partial
from typing import Final

from haptera.errors import ConfigurationError
from haptera.wire import SECRET_SIZE_MIN

#: A longer secret is a file that was named by mistake.
KEY_SIZE_MAX: Final = 4096
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO

_logger = logging.getLogger("haptera.peer")


def read_key_file(path: str | os.PathLike[str]) -> bytes:
    """Return the secret in a file: all of its bytes, a line end included, as they stand.

    It has 32 to 4096 bytes. There is a warning in the log if the file's mode lets others than its owner at it. Raises
    ``ConfigurationError``, which shows nothing of the content.
    """
    secret, mode = _read_key(path)
    _warn_of_mode(path, mode)
    return secret


def check_key_file(path: str | os.PathLike[str]) -> None:
    """Raise ``ConfigurationError`` if a file's secret can't be used."""
    _read_key(path)


def read_secret_file(path: str | os.PathLike[str], name: str, form: str) -> bytes:
    """Return the content of a file that holds a secret of at most 4096 bytes.

    ``name`` is how errors call the file, and ``form`` says in them what it should hold. Warns and raises as
    `read_key_file`.
    """
    secret, mode = _read(path, name, form)
    if len(secret) > KEY_SIZE_MAX:
        raise _unusable(name, path, f"it has more than {KEY_SIZE_MAX} bytes", form=form)
    _warn_of_mode(path, mode)
    return secret


def _warn_of_mode(path: str | os.PathLike[str], mode: int) -> None:
    if mode & _OTHERS:
        shown = os.fspath(path)
        fields = {"path": shown, "mode": oct(stat.S_IMODE(mode)), "help": f"chmod 600 {shown}"}
        _logger.warning("key_file_open_to_others", extra=fields)


def _read_key(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return the pre-shared key in a file, and the file's mode."""
    secret, mode = _read(path, "key file")
    if not SECRET_SIZE_MIN <= len(secret) <= KEY_SIZE_MAX:
        raise _unusable("key file", path, f"a key has {SECRET_SIZE_MIN} to {KEY_SIZE_MAX} bytes")
    return secret, mode


def _read(path: str | os.PathLike[str], name: str, form: str = "") -> tuple[bytes, int]:
    """Return the content, up to one byte more than a key may have, and the file's mode."""
    unusable = partial(_unusable, name, path, form=form)
    try:
        # Not waiting for the other end of a pipe, nor taking a terminal.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise unusable(getattr(error, "strerror", None) or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise unusable("it is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file")
        secret = os.read(descriptor, KEY_SIZE_MAX + 1)
    except OSError as error:
        raise unusable(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    return secret, status.st_mode


def _unusable(name: str, path: str | os.PathLike[str], reason: str, *, form: str = "") -> ConfigurationError:
    return ConfigurationError(f"the {name} {os.fspath(path)} cannot be used: {reason}{form and f'; {form}'}")
