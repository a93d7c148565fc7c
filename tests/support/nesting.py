"""Strategies of values in values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable


def nested(
    base: st.SearchStrategy[Any], extend: Callable[[st.SearchStrategy[Any]], st.SearchStrategy[Any]], *, max_leaves: int
) -> st.SearchStrategy[Any]:
    """Return ``st.recursive`` of these.

    Hypothesis reads the source of ``extend`` when the strategy is first used, to warn where its argument is not used.
    If the file has been edited since it was imported, it reads another line and warns for nothing. A partial has no
    source.
    """
    return st.recursive(base, partial(extend), max_leaves=max_leaves)
