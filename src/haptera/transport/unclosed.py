"""The warning about objects that a program has dropped open.

asyncio gives one for each transport and names its descriptor; this one names the object that the program has opened.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Final

from haptera import forks

#: The ways to close an object of a program that runs on an event loop.
REMEDY: Final = "use it with 'async with', or await its aclose()"


def warn_unclosed(
    dropped: object, name: str, *, remedy: str = REMEDY, warn: Callable[..., None] = warnings.warn
) -> None:
    """Warn that nothing has closed ``dropped``, which its program knows as ``name``. Its ``__del__`` calls this.

    ``remedy`` says how it is closed.

    A forked child says nothing: its parent closes the objects that it has inherited.
    """
    if not forks.inherits():
        message = f"unclosed {name}: {remedy}"
        warn(message, ResourceWarning, source=dropped)
