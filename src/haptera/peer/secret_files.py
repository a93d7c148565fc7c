"""Files of pre-shared keys (spec/protocol.md, section 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.transport import SECRET_FILE_SIZE_MAX, read_file, unusable, warn_of_mode
from haptera.wire import SECRET_SIZE_MIN

if TYPE_CHECKING:
    import os

_NAME: Final = "key file"
_FORM: Final = f"a key has {SECRET_SIZE_MIN} to {SECRET_FILE_SIZE_MAX} bytes"


def read_key_file(path: str | os.PathLike[str]) -> bytes:
    """Return the secret in a file: all of its bytes, a line end included, as they stand.

    It has 32 to 4096 bytes. There is a warning in the log if the file's mode lets others than its owner at it. Raises
    ``ConfigurationError``, which shows nothing of the content.
    """
    secret, mode = _read(path)
    warn_of_mode(path, mode)
    return secret


def check_key_file(path: str | os.PathLike[str]) -> None:
    """Raise ``ConfigurationError`` if a file's secret can't be used."""
    _read(path)


def _read(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return the pre-shared key in a file, and the file's mode."""
    secret, mode = read_file(path, _NAME, _FORM, size_max=SECRET_FILE_SIZE_MAX)
    if len(secret) < SECRET_SIZE_MIN:
        raise unusable(_NAME, path, "it is too short", form=_FORM)
    return secret, mode
