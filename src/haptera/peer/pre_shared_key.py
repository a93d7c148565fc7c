"""Files that hold a pre-shared key (spec/protocol.md, section 5.2)."""

from __future__ import annotations

import logging
import os
import stat
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
    secret, mode = _read(path)
    if mode & _OTHERS:
        shown = os.fspath(path)
        fields = {"path": shown, "mode": oct(stat.S_IMODE(mode)), "help": f"chmod 600 {shown}"}
        _logger.warning("key_file_open_to_others", extra=fields)
    return secret


def check_key_file(path: str | os.PathLike[str]) -> None:
    """Raise ``ConfigurationError`` if a file's secret can't be used."""
    _read(path)


def _read(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return the secret and the file's mode."""
    shown = os.fspath(path)
    try:
        # Not waiting for the other end of a pipe, nor taking a terminal.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise _unusable(shown, getattr(error, "strerror", None) or str(error)) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(shown, "it is no regular file")
        secret = os.read(descriptor, KEY_SIZE_MAX + 1)
    except OSError as error:
        raise _unusable(shown, error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if not SECRET_SIZE_MIN <= len(secret) <= KEY_SIZE_MAX:
        raise _unusable(shown, f"a key has {SECRET_SIZE_MIN} to {KEY_SIZE_MAX} bytes")
    return secret, status.st_mode


def _unusable(path: str, reason: str) -> ConfigurationError:
    return ConfigurationError(f"the key file {path} cannot be used: {reason}")
