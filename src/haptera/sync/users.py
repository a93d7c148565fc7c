# Generated from client/calls/administration.py by tools/generate_sync.py (make generate). Do not edit.
"""The administration of users, roles, grants and tokens, for threads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from haptera.client import NewToken, RoleGrants, RoleInfo, Token, User, UserQuota
from haptera.peer import DEFAULT, Timeout
from haptera.sync.facade import Facade, Items

if TYPE_CHECKING:
    from haptera.client import Administration as AsyncAdministration


class Administration(Facade["AsyncAdministration"]):
    """The users, roles, grants and tokens of a store: ``db.admin``.

    Each call needs the permission ``user_admin``, but for `set_password` of the caller's own user; and a caller gives
    or takes no more than it may do itself (``PermissionDenied``). Changes are durable when they are answered. A change
    returns whether there was something to change where its docstring says so.
    """

    __slots__ = ()

    def add_user(
        self, name: str, password: str | None = None, *, roles: Iterable[str] = (), timeout: Timeout = DEFAULT
    ) -> None:
        """Add a user.

        Args:
            name: 1 to 256 bytes of UTF-8 without a control character.
            password: At least 12 characters, 5 different ones, without the name. None for a user that a certificate or
                another mechanism lets in.
            roles: The roles that it has.

        Raises:
            PasswordPolicy: The password is too easy to guess. Nothing was sent.
            UserExists: There is such a user.
            RoleNotFound: There is no such role.
        """
        self._run(lambda: self._inner.add_user(name, password, roles=roles, timeout=timeout))

    def remove_user(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Remove a user.

        Raises:
            UserNotFound: There is no such user.
            LastAdmin: It is the last administrator.
        """
        self._run(lambda: self._inner.remove_user(name, timeout=timeout))

    def set_password(self, name: str, password: str | None, *, timeout: Timeout = DEFAULT) -> None:
        """Give a user another password.

        A user that has come in by its password may change its own. None takes the password away.

        Raises:
            PasswordPolicy: The password is too easy to guess. Nothing was sent.
            UserNotFound: There is no such user.
            LastAdmin: The last administrator would have no password.
        """
        self._run(lambda: self._inner.set_password(name, password, timeout=timeout))

    def disable_user(self, name: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Let a user do nothing any more, and keep it with its roles. Returns whether it was enabled.

        Raises:
            UserNotFound: There is no such user.
            LastAdmin: It is the last administrator.
        """
        return self._run(lambda: self._inner.disable_user(name, timeout=timeout))

    def enable_user(self, name: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Let a user that was disabled do again what its roles say. Returns whether it was disabled.

        Raises:
            UserNotFound: There is no such user.
        """
        return self._run(lambda: self._inner.enable_user(name, timeout=timeout))

    def assign_role(self, user: str, role: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Give a role to a user. Returns whether it had not got it.

        Raises:
            UserNotFound: There is no such user.
            RoleNotFound: There is no such role.
        """
        return self._run(lambda: self._inner.assign_role(user, role, timeout=timeout))

    def withdraw_role(self, user: str, role: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Take a role from a user. Returns whether it had it.

        Raises:
            UserNotFound: There is no such user.
            RoleNotFound: There is no such role.
            LastAdmin: It is the last administrator, by this role.
        """
        return self._run(lambda: self._inner.withdraw_role(user, role, timeout=timeout))

    def user(self, name: str, *, timeout: Timeout = DEFAULT) -> User:
        """A user, with the roles that it has by itself.

        Raises:
            UserNotFound: There is no such user.
        """
        return self._run(lambda: self._inner.user(name, timeout=timeout))

    def users(self, *, timeout: Timeout = DEFAULT) -> Items[User]:
        """Iterate over the users in the order of their names. The node gives up to 1,000 with each call."""
        return Items(self._inner.users(timeout=timeout), self)

    def set_quota(
        self,
        user: str,
        *,
        keys: int | None = None,
        size: int | None = None,
        watches: int | None = None,
        leases: int | None = None,
        claim: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> bool:
        """Say how much a user may have, in the place of an earlier quota. Without a number the user may have any number
        of it, and without any the quota is removed. Only an administrator may. Returns whether something has
        changed.

        A key counts for the user who wrote it last, and a token for the user who made it where that has a quota, or for
        the one that `add_token` names. A change that would take more than the quota leaves is ``QuotaExceeded``, and a
        change that adds nothing goes on.

        Args:
            user: The user.
            keys: Keys.
            size: Bytes of the keys and their values together.
            watches: Watches that are open at one time, at one node.
            leases: Leases.
            claim: A prefix: the present keys that begin with it count for this user from now on, unless they count for
                another. Other keys of before count from their next change on.

        Raises:
            UserNotFound: There is no such user.
        """
        return self._run(
            lambda: self._inner.set_quota(
                user, keys=keys, size=size, watches=watches, leases=leases, claim=claim, timeout=timeout
            )
        )

    def quota(self, user: str, *, timeout: Timeout = DEFAULT) -> UserQuota | None:
        """The quota of a user with what counts for it; None for a user that has none.

        Raises:
            UserNotFound: There is no such user.
        """
        return self._run(lambda: self._inner.quota(user, timeout=timeout))

    def add_role(self, name: str, *, parents: Iterable[str] = (), timeout: Timeout = DEFAULT) -> None:
        """Add a role, which has the grants of its parents.

        Raises:
            RoleExists: There is such a role.
            RoleNotFound: There is no such parent.
        """
        self._run(lambda: self._inner.add_role(name, parents=parents, timeout=timeout))

    def remove_role(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Remove a role. Users, tokens and roles that have it lose it.

        Raises:
            RoleNotFound: There is no such role.
            ProtectedRole: It is ``admin``.
            LastAdmin: The last administrator is one by this role.
        """
        self._run(lambda: self._inner.remove_role(name, timeout=timeout))

    def add_parent(self, role: str, parent: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Give a role the grants of another one. Returns whether it was not its parent.

        Raises:
            RoleNotFound: There is no such role or parent.
            ProtectedRole: The role is ``admin``.
            InvalidArgument: The parent contains the role.
        """
        return self._run(lambda: self._inner.add_parent(role, parent, timeout=timeout))

    def remove_parent(self, role: str, parent: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Take from a role the grants of another one. Returns whether it was its parent.

        Raises:
            RoleNotFound: There is no such role or parent.
            ProtectedRole: The role is ``admin``.
            LastAdmin: The last administrator is one by this parent.
        """
        return self._run(lambda: self._inner.remove_parent(role, parent, timeout=timeout))

    def role(self, name: str, *, timeout: Timeout = DEFAULT) -> RoleGrants:
        """A role, with its parents and its own grants.

        Raises:
            RoleNotFound: There is no such role.
        """
        return self._run(lambda: self._inner.role(name, timeout=timeout))

    def roles(self, *, timeout: Timeout = DEFAULT) -> Items[RoleInfo]:
        """Iterate over the roles in the order of their names, the built-in ``admin`` among them."""
        return Items(self._inner.roles(timeout=timeout), self)

    def add_grant(self, role: str, permissions: Iterable[str], pattern: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Let a role do more to the keys that match a pattern. Returns whether it gives more than before.

        Args:
            role: The role.
            permissions: Some of read, write, delete, scan, watch, lease; and, on ``*`` alone, of admin, user_admin,
                backup, restore, metrics, cluster.
            pattern: A glob, such as ``app/*``: a prefix, and the fastest one to check.

        Raises:
            RoleNotFound: There is no such role.
            ProtectedRole: The role is ``admin``.
        """
        return self._run(lambda: self._inner.add_grant(role, permissions, pattern, timeout=timeout))

    def remove_grant(self, role: str, permissions: Iterable[str], pattern: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Take permissions from the grant of a role on just this pattern. Returns whether it gives less than before.

        Raises:
            RoleNotFound: There is no such role.
            ProtectedRole: The role is ``admin``.
        """
        return self._run(lambda: self._inner.remove_grant(role, permissions, pattern, timeout=timeout))

    def add_token(
        self,
        name: str,
        *,
        roles: Iterable[str],
        ttl: float | None = None,
        quota_of: str | None = None,
        timeout: Timeout = DEFAULT,
    ) -> NewToken:
        """Make a token: a program's user, with a random password that is given here and never again.

        Args:
            name: Its name; ``token:`` is put in front of it where it does not stand there.
            roles: The roles that it has.
            ttl: Seconds for which it is good, by this machine's clock; None for no end.
            quota_of: The user for whose quota it counts. None for the caller, where that has a quota. Only an
                administrator may name another user.

        Raises:
            UserExists: There is such a token, and it has not expired.
            UserNotFound: There is no user ``quota_of``.
            RoleNotFound: There is no such role.
        """
        return self._run(lambda: self._inner.add_token(name, roles=roles, ttl=ttl, quota_of=quota_of, timeout=timeout))

    def remove_token(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Revoke a token: from now on it is good for nothing.

        Raises:
            UserNotFound: There is no such token.
        """
        self._run(lambda: self._inner.remove_token(name, timeout=timeout))

    def tokens(self, *, timeout: Timeout = DEFAULT) -> Items[Token]:
        """Iterate over the tokens in the order of their names. One that has expired stays until another is made."""
        return Items(self._inner.tokens(timeout=timeout), self)
