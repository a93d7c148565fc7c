"""The warning about what a program has dropped open.

asyncio gives one for each transport and names its descriptor; this one names what the program has opened.
"""

import warnings
from collections.abc import Callable

from haptera import forks


def warn_unclosed(dropped: object, name: str, *, warn: Callable[..., None] = warnings.warn) -> None:
    """Warn that nothing has closed ``dropped``, which its program knows as ``name``. Its ``__del__`` calls this.

    A forked child says nothing: what it has inherited is its parent's to close.
    """
    if not forks.inherits():
        message = f"unclosed {name}: use it with 'async with', or await its aclose()"
        warn(message, ResourceWarning, source=dropped)
