"""The form in which the class of an operation says which permissions it needs (spec/protocol.md, section 5.3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from haptera.access_rules import KeyPermission

#: Permissions in the order in which they are judged.
Permissions = tuple[KeyPermission, ...]


class Needs(NamedTuple):
    """The permissions that an operation needs: on its ``key``, each of its ``keys`` or ``items``, the ``new_key``, all
    keys with its ``prefix``, and ``somewhere`` on some key. The ``options`` need more on the first of these, where they
    are given.
    """

    key: Permissions = ()
    keys: Permissions = ()
    items: Permissions = ()
    prefix: Permissions = ()
    new_key: Permissions = ()
    somewhere: Permissions = ()
    options: Mapping[str, KeyPermission] = {}
