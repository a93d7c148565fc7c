"""Bounded memories of what was decoded: the same few methods are called, with the same timeout, again and again."""

from typing import TypeVar

from haptera.connection.config import METADATA_KNOWN_MAX, METADATA_KNOWN_SIZE_MAX, ROUTES_MAX

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember(cache: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    """Add to a cache of routes; a full one starts again."""
    if len(cache) >= ROUTES_MAX:
        cache.clear()
    cache[key] = value


def remember_metadata(cache: dict[bytes, _Value], metadata: bytes, decoded: _Value) -> None:
    """Add what a frame's metadata means to a cache; a full one starts again, and what is long is left out."""
    if len(metadata) <= METADATA_KNOWN_SIZE_MAX:
        if len(cache) >= METADATA_KNOWN_MAX:
            cache.clear()
        cache[metadata] = decoded
