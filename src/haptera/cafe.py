"""The client of CAFE, a small multiplexed key-value protocol that a node speaks at ``cafe://`` (spec/cafe.md)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.lazy import lazily

if TYPE_CHECKING:
    from haptera.dialects import MultiplexedClient

__all__ = ["MultiplexedClient"]

if not TYPE_CHECKING:  # a type checker would take it to mean that any name is there
    __getattr__ = lazily(__name__, dict.fromkeys(__all__, "haptera.dialects"))


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
