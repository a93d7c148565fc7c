"""A bounded memory of routes: the same few services and methods are called again and again."""

from typing import TypeVar

from haptera.connection.config import ROUTES_MAX

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Add to a cache of routes; a full one starts again."""
    if len(cache) >= ROUTES_MAX:
        cache.clear()
    cache[key] = value
