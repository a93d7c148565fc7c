"""The file of a shared key (spec/cafe.md, section 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.secret_forms import form_of, key_in, size_of_no_key
from haptera.transport import read_secret_file, unusable

if TYPE_CHECKING:
    import os

#: The option of a URL that names the file.
KEY_FILE: Final = "key_file"
_NAME: Final = "key file"
_FORM: Final = form_of("the shared key of CAFE")


def read_shared_key(path: str | os.PathLike[str]) -> bytes:
    """Return the key of 32 bytes in a file.

    There is a warning in the log if the file's mode lets others than its owner at it. Raises ``ConfigurationError``,
    which shows nothing of the content.
    """
    content = read_secret_file(path, _NAME, _FORM)
    key = key_in(content)
    if key is None:
        raise unusable(_NAME, path, f"it has {size_of_no_key(content)}", form=_FORM)
    return key
