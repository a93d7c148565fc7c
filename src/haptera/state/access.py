"""The part ``access``: users, roles with their grants, and tokens. Replicated like the keys.

Each table is replaced by a change and never altered. So a reader has one whole state, and a change is judged on the
tables as they would be, before it is made (`haptera.state.access_commands`).

The role ``admin`` is built in and stands in no table. An *administrator* is a user that is enabled, has a verifier, and
has this role, by itself or by the parents of its roles. Once there is one, no change leaves none. A user without a
verifier counts for none, because only the configuration of a node could let it in, and the log does not know that.

The 1,000 roles may have 64,000 parents together. So each walk passes a parent once (`reached`, `powerful_roles`,
`has_circle`), and a command makes no walk for each role.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from haptera.access_rules import (
    ADMIN_ROLE,
    EVERY_KEY,
    KEY_PERMISSIONS,
    LOCAL_USER,
    NODE_PERMISSIONS,
    NODE_SECRET_SIZE,
    PERMISSIONS,
    Permission,
    is_name,
    is_token_name,
    is_user_name,
    is_verifier,
)
from haptera.state import limits
from haptera.state.access_operations import StoredVerifier
from haptera.state.glob import compile_glob
from haptera.state.grant_patterns import rests_size
from haptera.state.invariants import require
from haptera.state.permits import Permits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_encoder: Final = msgspec.msgpack.Encoder()


class StoredUser(msgspec.Struct, frozen=True, gc=False):
    """A user: how its password is verified, if it has one, and its roles, in order."""

    verifier: StoredVerifier | None
    roles: tuple[str, ...] = ()
    disabled: bool = False


class StoredToken(msgspec.Struct, frozen=True, gc=False):
    """A program's user, and the time, in Unix milliseconds, from which on it is good for nothing. ``quota_of`` is the
    user for whose quota it counts; empty where it counts for none.
    """

    verifier: StoredVerifier
    roles: tuple[str, ...] = ()
    expires_at_ms: int | None = None
    quota_of: str = ""

    def expired(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return self.expires_at_ms is not None and self.expires_at_ms <= now_ms


class StoredRole(msgspec.Struct, frozen=True, gc=False):
    """A role: its parents, in order, and the permissions that it gives on each pattern, both in order."""

    parents: tuple[str, ...] = ()
    grants: tuple[tuple[str, tuple[Permission, ...]], ...] = ()


class Login(NamedTuple):
    """The needs of an exchange from a user: its verifier, and whether it may come in. Neither is told to the peer."""

    verifier: StoredVerifier | None
    admitted: bool


class Access:
    """The tables, each by name in no order. ``revision`` counts the changes of all of them."""

    __slots__ = ("_permits", "_powerful", "grants", "revision", "roles", "secret", "tokens", "users")

    def __init__(self) -> None:
        self.revision: int = 0
        #: The secret of the decoys; empty before there is one. It stands with the verifiers: where a store goes with
        #: them, the salt of an unknown user has to stay the same as well.
        self.secret: bytes = b""
        self.users: Mapping[str, StoredUser] = {}
        self.roles: Mapping[str, StoredRole] = {}
        self.tokens: Mapping[str, StoredToken] = {}
        #: The grants of all roles.
        self.grants: int = 0
        #: Compiled since the last change, for each name that has been asked for: bounded by the tables.
        self._permits: dict[str, Permits] = {}
        #: Found since the last change of the roles, if it has been asked for.
        self._powerful: frozenset[str] | None = None

    def adopt(
        self,
        *,
        users: Mapping[str, StoredUser] | None = None,
        roles: Mapping[str, StoredRole] | None = None,
        tokens: Mapping[str, StoredToken] | None = None,
        secret: bytes | None = None,
    ) -> None:
        """Put tables in the place of others: one change."""
        self.revision += 1
        if secret is not None:
            self.secret = secret
        if users is not None:
            self.users = users
        if tokens is not None:
            self.tokens = tokens
        if roles is not None:
            self.roles = roles
            self.grants = sum(len(role.grants) for role in roles.values())
            self._powerful = None
        self._permits = {}

    @property
    def powerful(self) -> frozenset[str]:
        """The names of the roles that make an administrator."""
        powerful = self._powerful
        if powerful is None:
            powerful = self._powerful = powerful_roles(self.roles)
        return powerful

    @property
    def has_administrator(self) -> bool:
        """Whether there is an administrator, so that there always will be one."""
        powerful = self.powerful
        return any(is_administrator(user, powerful) for user in self.users.values())

    def login(self, name: str, now_ms: int) -> Login:
        """Find the user or the token of a name that somebody gives as its own."""
        token = self.tokens.get(name)
        if token is not None:
            return Login(token.verifier, not token.expired(now_ms))
        user = self.users.get(name)
        return Login(None, False) if user is None else Login(user.verifier, not user.disabled)

    def roles_of(self, name: str) -> tuple[str, ...]:
        """The roles that a user or a token has by itself, in order; none for one that is unknown."""
        if name == LOCAL_USER:
            return (ADMIN_ROLE,)
        holder = self.tokens.get(name) or self.users.get(name)
        return () if holder is None else holder.roles

    def permits(self, name: str, now_ms: int) -> Permits:
        """All that a user or a token may do: nothing for one that is unknown, disabled or expired.

        The result is good until ``revision`` changes, and for a token until it expires.
        """
        if not self.login(name, now_ms).admitted:
            return NOTHING
        permits = self._permits.get(name)
        if permits is None:
            holder = self.tokens.get(name) or self.users[name]
            permits = self._permits[name] = self._compiled(holder.roles)
        return permits

    def restriction(self, name: str, now_ms: int) -> Permits | None:
        """All that a user or a token may do, and None for one that may do everything; good as long as `permits`."""
        permits = self.permits(name, now_ms)
        return None if permits is EVERYTHING else permits

    def expires_at_ms(self, name: str) -> int | None:
        """The time from which on a token is good for nothing; None for any other name."""
        token = self.tokens.get(name)
        return None if token is None else token.expires_at_ms

    def payer(self, name: str) -> str:
        """The user for whose quota a user or a token counts."""
        token = self.tokens.get(name)
        return name if token is None else token.quota_of

    def _compiled(self, roles: Iterable[str]) -> Permits:
        held = reached(self.roles, roles)
        if ADMIN_ROLE in held:
            return EVERYTHING
        return Permits([grant for name in sorted(held) for grant in self.roles[name].grants])

    def digest(self) -> bytes:
        """32 bytes that are equal for equal tables."""
        digest = hashlib.sha256(_encoder.encode(self.revision))
        if self.secret:
            digest.update(self.secret)
        tables: tuple[Mapping[str, StoredUser | StoredRole | StoredToken], ...] = (self.users, self.roles, self.tokens)
        for table in tables:
            for name, record in sorted(table.items()):
                digest.update(_encoder.encode((name, _digested(record))))
            digest.update(b"\0")
        return digest.digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold, if one does not."""
        require(len(self.secret) in {0, NODE_SECRET_SIZE}, "the secret of the decoys has its size")
        require(len(self.users) <= limits.USERS_MAX, "there are not too many users")
        require(len(self.tokens) <= limits.TOKENS_MAX, "there are not too many tokens")
        require(len(self.roles) <= limits.ROLES_MAX, "there are not too many roles")
        require(all(map(is_user_name, self.users)), "each user has a name")
        require(all(map(is_token_name, self.tokens)), "each token has a name")
        payers = {token.quota_of for token in self.tokens.values()} - {""}
        require(all(map(is_user_name, payers)), "each token counts for a user, if for any")
        require(all(map(is_name, self.roles)) and ADMIN_ROLE not in self.roles, "each role has a name of its own")
        held = [role.parents for role in self.roles.values()]
        holders: list[StoredUser | StoredToken] = [*self.users.values(), *self.tokens.values()]
        for holder in holders:
            held.append(holder.roles)
            require(holder.verifier is None or is_verifier(holder.verifier), "each verifier can be one")
        for roles in held:
            require(list(roles) == sorted(set(roles)), "the roles of each are in order")
            require(len(roles) <= limits.ROLES_HELD_MAX, "no one has too many roles")
            require(all(self.has_role(each) for each in roles), "each role that somebody has is there")
        require(not has_circle(self.roles), "no role contains itself")
        for role in self.roles.values():
            patterns = [pattern for pattern, _ in role.grants]
            require(patterns == sorted(set(patterns)), "the patterns of a role are in order")
            for pattern, permissions in role.grants:
                compile_glob(pattern)
                require(permissions == in_order(permissions) != (), "the permissions of a grant are in order")
                require(
                    pattern == EVERY_KEY or set(permissions).isdisjoint(NODE_PERMISSIONS),
                    "permissions of the node are granted on every key",
                )
        require(self.grants == sum(len(role.grants) for role in self.roles.values()), "the grants are counted")
        require(self.grants <= limits.GRANTS_MAX, "there are not too many grants")
        granted = (pattern for role in self.roles.values() for pattern, _ in role.grants)
        require(rests_size(granted) <= limits.GRANT_RESTS_SIZE_MAX, "a key is compared with few enough patterns")

    def has_role(self, name: str) -> bool:
        """Whether there is a role of this name."""
        return name == ADMIN_ROLE or name in self.roles


def _digested(record: StoredUser | StoredRole | StoredToken) -> tuple[Any, ...]:
    """The fields of a record. A token that counts for no quota has those that it had before there were any."""
    fields = msgspec.structs.astuple(record)
    return fields[:-1] if isinstance(record, StoredToken) and not record.quota_of else fields


def reached(roles: Mapping[str, StoredRole], names: Iterable[str]) -> set[str]:
    """Return these roles with their parents, the parents of those, and so on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            role = roles.get(name)
            if role is not None:
                waiting += role.parents
    return found


def powerful_roles(roles: Mapping[str, StoredRole]) -> frozenset[str]:
    """Return the names of the roles that contain ``admin``, itself among them: one walk from parents to children."""
    children = _children(roles)
    found = {ADMIN_ROLE}
    waiting = [ADMIN_ROLE]
    while waiting:
        new = [each for each in children.get(waiting.pop(), ()) if each not in found]
        found.update(new)
        waiting += new
    return frozenset(found)


def has_circle(roles: Mapping[str, StoredRole]) -> bool:
    """Whether some role contains itself. A role is passed when all of its parents are, and one of a circle never is."""
    children = _children(roles)
    awaited = {name: sum(parent in roles for parent in role.parents) for name, role in roles.items()}
    waiting = [name for name, count in awaited.items() if not count]
    passed = 0
    while waiting:
        passed += 1
        for child in children.get(waiting.pop(), ()):
            awaited[child] -= 1
            if not awaited[child]:
                waiting.append(child)
    return passed < len(roles)


def _children(roles: Mapping[str, StoredRole]) -> dict[str, list[str]]:
    """Return the roles that have each role as a parent."""
    children: dict[str, list[str]] = {}
    for name, role in roles.items():
        for parent in role.parents:
            children.setdefault(parent, []).append(name)
    return children


def is_administrator(user: StoredUser, powerful: frozenset[str]) -> bool:
    """Whether a user can come in by a password, and do everything by one of these roles."""
    return user.verifier is not None and not user.disabled and not powerful.isdisjoint(user.roles)


def in_order(permissions: Iterable[Permission]) -> tuple[Permission, ...]:
    """Return permissions in their order, each once."""
    given = set(permissions)
    return tuple(each for each in PERMISSIONS if each in given)


#: All that a stranger may do, and an administrator.
NOTHING: Final = Permits([])
EVERYTHING: Final = Permits([(EVERY_KEY, (*KEY_PERMISSIONS, *NODE_PERMISSIONS))])
