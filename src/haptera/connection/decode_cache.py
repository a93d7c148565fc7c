"""Bounded memories of decoded names and metadata: the same few methods are called, with the same timeout, again and
again.
"""

from __future__ import annotations

from typing import TypeVar

from haptera.connection.config import METADATA_KNOWN_MAX, METADATA_KNOWN_SIZE_MAX, ROUTES_MAX

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def remember_route(cache: dict[_Key, _Value], key: _Key, names: _Value, size: int) -> None:
    """Add a route of ``size`` bytes to a cache; a full one starts again, and a long one is left out."""
    if size <= METADATA_KNOWN_SIZE_MAX:
        _add(cache, key, names, ROUTES_MAX)


def remember_metadata(cache: dict[bytes, _Value], metadata: bytes, decoded: _Value) -> None:
    """Add a frame's decoded metadata to a cache; a full one starts again, and long metadata is left out."""
    if len(metadata) <= METADATA_KNOWN_SIZE_MAX:
        _add(cache, metadata, decoded, METADATA_KNOWN_MAX)


def _add(cache: dict[_Key, _Value], key: _Key, value: _Value, count_max: int) -> None:
    if len(cache) >= count_max:
        cache.clear()
    cache[key] = value
