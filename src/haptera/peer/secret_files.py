"""Files of pre-shared keys and of passwords (spec/protocol.md, section 5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.access_rules import PASSWORD_SIZE_MAX, is_password
from haptera.transport import SECRET_FILE_SIZE_MAX, read_file, unusable, warn_of_mode
from haptera.wire import SECRET_SIZE_MIN

if TYPE_CHECKING:
    import os

_NAME: Final = "key file"
_PASSWORD_NAME: Final = "password file"  # noqa: S105  # the word of errors
_PASSWORD_FORM: Final = f"a password is one line of 1 to {PASSWORD_SIZE_MAX} bytes of UTF-8"
_FORM: Final = f"a key has {SECRET_SIZE_MIN} to {SECRET_FILE_SIZE_MAX} bytes"


def read_key_file(path: str | os.PathLike[str]) -> bytes:
    """Return the secret in a file: all of its bytes, a line end included, as they stand.

    It has 32 to 4096 bytes. There is a warning in the log if the file's mode lets others than its owner at it. Raises
    ``ConfigurationError``, which shows nothing of the content.
    """
    secret, mode = _read(path)
    warn_of_mode(path, mode)
    return secret


def read_password_file(path: str | os.PathLike[str]) -> str:
    """Return the password in a file: its one line, without the line end.

    There is a warning in the log if the file's mode lets others than its owner at it. Raises ``ConfigurationError``,
    which shows nothing of the content.
    """
    content, mode = read_file(path, _PASSWORD_NAME, _PASSWORD_FORM, size_max=PASSWORD_SIZE_MAX + len("\r\n"))
    try:
        password = content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if "\n" in password:
        raise unusable(_PASSWORD_NAME, path, "it holds more than one line", form=_PASSWORD_FORM)
    if not is_password(password):
        raise unusable(_PASSWORD_NAME, path, "it holds no password", form=_PASSWORD_FORM)
    warn_of_mode(path, mode)
    return password


def check_key_file(path: str | os.PathLike[str]) -> None:
    """Raise ``ConfigurationError`` if a file's secret can't be used."""
    _read(path)


def _read(path: str | os.PathLike[str]) -> tuple[bytes, int]:
    """Return the pre-shared key in a file, and the file's mode."""
    secret, mode = read_file(path, _NAME, _FORM, size_max=SECRET_FILE_SIZE_MAX)
    if len(secret) < SECRET_SIZE_MIN:
        raise unusable(_NAME, path, "it is too short", form=_FORM)
    return secret, mode
