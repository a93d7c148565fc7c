"""The methods of the services ``admin`` and ``session``, each with the shape of its answer."""

from __future__ import annotations

from typing import ClassVar, Final, Generic, TypeVar

import msgspec

from haptera.client.calls.methods import Count, Method, Milliseconds

RowT = TypeVar("RowT")


class Whoami(msgspec.Struct, frozen=True, gc=False):
    """The identity of a connection: its ``user``, empty for an anonymous one, the ``roles`` that it has by itself, the
    ``mechanism`` that has proved who it is, and whether the connection is ``secure``: inside TLS.
    """

    user: str
    roles: list[str]
    mechanism: str
    secure: bool


#: The caller of an embedded store, who may do everything.
ANYONE_HERE: Final = Whoami("", [], "", False)


class User(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A user. It has a *verifier* if it has a password."""

    name: str
    has_verifier: bool
    disabled: bool
    roles: list[str]


class Amounts(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How many keys, bytes (``size``), watches and leases a user may have, or has; None where that is any number."""

    keys: Count | None
    size: Count | None
    watches: Count | None
    leases: Count | None


class FoundQuota(msgspec.Struct, array_like=True, frozen=True):
    limit: Amounts | None
    used: Amounts | None


class FoundRole(msgspec.Struct, array_like=True, frozen=True):
    """The parents of a role, and its grants in the order of their patterns."""

    parents: list[str]
    grants: list[tuple[str, list[str]]]


class RoleInfo(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A role in a list: its parents, and the number of patterns on which it gives something by itself."""

    name: str
    parents: list[str]
    patterns: Count


class ListedToken(msgspec.Struct, array_like=True, frozen=True, gc=False):
    name: str
    expires_at_ms: Milliseconds | None
    roles: list[str]


class Changed(msgspec.Struct, array_like=True, frozen=True):
    changed: bool


class NamedRows(msgspec.Struct, Generic[RowT], array_like=True, frozen=True):
    """Some rows of a list in the order of their names, and whether there are more behind them."""

    rows: list[RowT]
    more: bool


class AdminMethods:
    """The methods of the service ``admin``."""

    SERVICE: Final = "admin"

    add_user: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    remove_user: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    set_verifier: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    set_disabled: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    assign_role: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    withdraw_role: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    add_role: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    remove_role: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    add_parent: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    remove_parent: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    add_grant: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    remove_grant: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    add_token: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    remove_token: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    set_quota: ClassVar[Method[Changed]] = Method(Changed, write=True, service=SERVICE)
    quota: ClassVar[Method[FoundQuota]] = Method(FoundQuota, service=SERVICE)
    user: ClassVar[Method[User]] = Method(User, service=SERVICE)
    users: ClassVar[Method[NamedRows[User]]] = Method(NamedRows[User], service=SERVICE)
    role: ClassVar[Method[FoundRole]] = Method(FoundRole, service=SERVICE)
    roles: ClassVar[Method[NamedRows[RoleInfo]]] = Method(NamedRows[RoleInfo], service=SERVICE)
    tokens: ClassVar[Method[NamedRows[ListedToken]]] = Method(NamedRows[ListedToken], service=SERVICE)


class SessionMethods:
    """The methods of the service ``session`` that a database calls."""

    whoami: ClassVar[Method[Whoami]] = Method(Whoami, service="session")
