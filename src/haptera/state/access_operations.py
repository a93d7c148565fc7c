"""The commands of the part ``access``: users, roles, grants and tokens (`haptera.state.access_commands`).

A node logs the changes like any other, so that users are there after a crash, in a snapshot and in a backup. They are
methods of the admin service, and none of the kv service.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Struct

from haptera.access_rules import Permission, is_user_name
from haptera.state.field_kinds import (
    Bound,
    ExpiryTime,
    GrantPattern,
    NameKind,
    NodeSecret,
    PermissionsKind,
    RoleName,
    RoleNames,
    TokenName,
    UserName,
    VerifierKind,
    Version,
)
from haptera.state.operations import Read, Write

if TYPE_CHECKING:
    from collections.abc import Callable

    from haptera.errors import Failure


class StoredVerifier(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """The half of a password that is kept (`haptera.security.Verifier`). It is secret."""

    salt: bytes
    iterations: int
    stored_key: bytes
    server_key: bytes

    def __repr__(self) -> str:
        """Show no key."""
        return "StoredVerifier(***)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("verifier", "***")]


class GivenNameKind(NameKind):
    """Such a name, where one is given."""

    def __init__(self, rule: Callable[[str], bool]) -> None:
        super().__init__(rule)
        self.accepts: str = f"({{0}} is None or {self.accepts})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if getattr(op, name) is None else super().refusal(name, op)


Credential = Annotated[StoredVerifier, VerifierKind()]
Permissions = Annotated[list[Permission], PermissionsKind()]
GivenUserName = Annotated[str, GivenNameKind(is_user_name)]


class AccessChange(Write, frozen=True):
    """The base of the changes of this part. Each answers whether it has changed something."""

    goes_on = True


class AddUser(AccessChange, tag="access.add_user", frozen=True):
    """A user without a verifier has no password; another mechanism may prove its identity."""

    user: UserName
    verifier: Credential | None
    roles: RoleNames


class RemoveUser(AccessChange, tag="access.remove_user", frozen=True):
    """Its quota goes with it."""

    frees = True
    in_slices = True

    user: UserName


class SetVerifier(AccessChange, tag="access.set_verifier", frozen=True):
    user: UserName
    verifier: Credential | None


class SetDisabled(AccessChange, tag="access.set_disabled", frozen=True):
    user: UserName
    disabled: bool


class AssignRole(AccessChange, tag="access.assign_role", frozen=True):
    user: UserName
    role: RoleName


class WithdrawRole(AccessChange, tag="access.withdraw_role", frozen=True):
    frees = True

    user: UserName
    role: RoleName


class AddRole(AccessChange, tag="access.add_role", frozen=True):
    """A role has the grants of its parents beside its own."""

    role: RoleName
    parents: RoleNames


class RemoveRole(AccessChange, tag="access.remove_role", frozen=True):
    """Users, tokens and roles that have it lose it."""

    frees = True
    in_slices = True

    role: RoleName


class AddParent(AccessChange, tag="access.add_parent", frozen=True):
    role: RoleName
    parent: RoleName


class RemoveParent(AccessChange, tag="access.remove_parent", frozen=True):
    frees = True

    role: RoleName
    parent: RoleName


class AddGrant(AccessChange, tag="access.add_grant", frozen=True):
    """Permissions on the keys that match a glob; those of the node as a whole are granted on ``*``."""

    role: RoleName
    permissions: Permissions
    pattern: GrantPattern


class RemoveGrant(AccessChange, tag="access.remove_grant", frozen=True):
    """Take permissions from the grant of just this pattern."""

    frees = True

    role: RoleName
    permissions: Permissions
    pattern: GrantPattern


class AddToken(AccessChange, tag="access.add_token", frozen=True):
    """A token is a program's user with a random password. From ``expires_at_ms`` on it is good for nothing.

    It counts for the quota of the user ``quota_of``; unless that is given, for that of the user who makes it, where
    that one has a quota.
    """

    token: TokenName
    verifier: Credential
    roles: RoleNames
    expires_at_ms: ExpiryTime | None = None
    quota_of: GivenUserName | None = None


class RemoveToken(AccessChange, tag="access.remove_token", frozen=True):
    frees = True

    token: TokenName


class SetQuota(AccessChange, tag="access.set_quota", frozen=True):
    """The most that a user may have, in the place of an earlier quota; without a number it may have any number of it,
    and without any it has no quota. The keys that begin with ``claim`` and count for no user count for this one.
    """

    in_slices = True

    user: UserName
    keys: Version | None = None
    size: Version | None = msgspec.field(default=None, name="bytes")
    watches: Version | None = None
    leases: Version | None = None
    claim: Bound | None = None


class SetNodeSecret(AccessChange, tag="access.set_node_secret", frozen=True):
    """The secret of the decoys, of which a store has one: where there is one, it stays."""

    of_node = True

    secret: NodeSecret

    def __repr__(self) -> str:
        """Show no secret."""
        return "SetNodeSecret(***)"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("secret", "***")]


class ListUsers(Read, tag="access.users", frozen=True):
    """The users in the order of their names, behind ``after``: ``limit`` of them at most."""

    after: Bound | None = None
    limit: Version | None = None


class FindUser(Read, tag="access.user", frozen=True):
    user: UserName


class FindQuota(Read, tag="access.quota", frozen=True):
    """The quota of a user, and all that counts for it."""

    user: UserName


class ListRoles(Read, tag="access.roles", frozen=True):
    """The roles in the order of their names, with the built-in one."""

    after: Bound | None = None
    limit: Version | None = None


class FindRole(Read, tag="access.role", frozen=True):
    """The parents and the grants of a role."""

    role: RoleName


class ListTokens(Read, tag="access.tokens", frozen=True):
    """The tokens in the order of their names, without their verifiers."""

    after: Bound | None = None
    limit: Version | None = None
