"""Faces whose names are imported when they are first used, for packages that few programs use whole."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module


def lazily(
    package: str, modules: Mapping[str, str], other_names: Mapping[str, str] | None = None
) -> Callable[[str], object]:
    """Return the ``__getattr__`` of a package.

    Args:
        package: Its full name.
        modules: The module that has each name.
        other_names: The names that have another one in their module.
    """
    others = other_names or {}

    def get(name: str) -> object:
        module = modules.get(name)
        if module is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        loaded = import_module(module)
        if module == f"{package}.{name}":
            return loaded  # which is an attribute of the package by now
        value = getattr(loaded, others.get(name, name))
        setattr(sys.modules[package], name, value)  # the next use finds it without coming here
        return value

    return get
