"""Bounded memories of decoded names and metadata, and of its forms: the same few methods are called, with the same
timeout, again and again.
"""

from __future__ import annotations

from typing import TypeVar

from haptera.connection.config import LAYOUTS_MAX, METADATA_KNOWN_MAX, METADATA_KNOWN_SIZE_MAX, ROUTES_MAX
from haptera.wire import Layout

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


def remember_layout(cache: dict[int, Layout], metadata: bytes) -> None:
    """Add the form of a frame's metadata to a cache, by its length; a full one starts again."""
    _add(cache, len(metadata), Layout(metadata), LAYOUTS_MAX)


def _add(cache: dict[_Key, _Value], key: _Key, value: _Value, count_max: int) -> None:
    if len(cache) >= count_max:
        cache.clear()
    cache[key] = value
