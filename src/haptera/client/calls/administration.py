"""The administration of users, roles, grants and tokens (spec/protocol.md 7.3).

No password is sent. This side derives the verifier of a new password, which the store keeps, and judges the password by
the policy before that, because the store never sees it.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncGenerator, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from haptera.access_rules import TOKEN_PREFIX
from haptera.client.calls.access_methods import AdminMethods, Amounts, ListedToken, NamedRows, RoleInfo, User
from haptera.client.calls.argument_checks import ttl_ms_of
from haptera.client.calls.calling import Calling
from haptera.errors import ConfigurationError
from haptera.peer import DEFAULT, Timeout
from haptera.security import new_verifier, password_refusal

if TYPE_CHECKING:
    from haptera.client.calls.methods import Method

NamedT = TypeVar("NamedT", User, RoleInfo, ListedToken)

#: Random bytes of a token's secret: no guess meets it, so that its verifier may cost nothing.
_SECRET_SIZE: Final = 32


class RoleGrants(msgspec.Struct, frozen=True):
    """A role: its parents, whose grants it has too, and the permissions that it gives by itself on each pattern."""

    name: str
    parents: list[str]
    grants: dict[str, list[str]]


class UserQuota(msgspec.Struct, frozen=True):
    """The quota of a user: the most that it may have, and all that counts for it now."""

    limit: Amounts
    used: Amounts


class Token(msgspec.Struct, frozen=True, gc=False):
    """A token: its name, its roles, and the Unix time in seconds from which on it is good for nothing, or None."""

    name: str
    roles: list[str]
    expires_at: float | None


class NewToken(msgspec.Struct, frozen=True, gc=False):
    """A token that was made, with its ``secret``: its password, which nothing keeps and nothing shows again."""

    name: str
    secret: str
    expires_at: float | None

    def __repr__(self) -> str:
        """Show no secret."""
        return f"NewToken(name={self.name!r}, secret='***', expires_at={self.expires_at!r})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        """Show no more than ``repr`` does."""
        return [("name", self.name), ("secret", "***"), ("expires_at", self.expires_at)]


class Administration(Calling):
    """The users, roles, grants and tokens of a store: ``db.admin``.

    Each call needs the permission ``user_admin``, but for `set_password` of the caller's own user; and a caller gives
    or takes no more than it may do itself (``PermissionDenied``). Changes are durable when they are answered. A
    change returns whether there was something to change where its docstring says so.
    """

    async def add_user(
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
        user = _text("name", name)
        verifier = None if password is None else await self._verifier(password, user)
        await self._call(AdminMethods.add_user, (user, verifier, _texts("roles", roles)), timeout)

    async def remove_user(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Remove a user.

        Raises:
            UserNotFound: There is no such user.
            LastAdmin: It is the last administrator.
        """
        await self._call(AdminMethods.remove_user, (_text("name", name),), timeout)

    async def set_password(self, name: str, password: str | None, *, timeout: Timeout = DEFAULT) -> None:
        """Give a user another password.

        A user that has come in by its password may change its own. None takes the password away.

        Raises:
            PasswordPolicy: The password is too easy to guess. Nothing was sent.
            UserNotFound: There is no such user.
            LastAdmin: The last administrator would have no password.
        """
        user = _text("name", name)
        verifier = None if password is None else await self._verifier(password, user)
        await self._call(AdminMethods.set_verifier, (user, verifier), timeout)

    async def disable_user(self, name: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Let a user do nothing any more, and keep it with its roles. Returns whether it was enabled.

        Raises:
            UserNotFound: There is no such user.
            LastAdmin: It is the last administrator.
        """
        return (await self._call(AdminMethods.set_disabled, (_text("name", name), True), timeout)).changed

    async def enable_user(self, name: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Let a user that was disabled do again what its roles say. Returns whether it was disabled.

        Raises:
            UserNotFound: There is no such user.
        """
        return (await self._call(AdminMethods.set_disabled, (_text("name", name), False), timeout)).changed

    async def assign_role(self, user: str, role: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Give a role to a user. Returns whether it had not got it.

        Raises:
            UserNotFound: There is no such user.
            RoleNotFound: There is no such role.
        """
        return (await self._call(AdminMethods.assign_role, (_text("user", user), _text("role", role)), timeout)).changed

    async def withdraw_role(self, user: str, role: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Take a role from a user. Returns whether it had it.

        Raises:
            UserNotFound: There is no such user.
            RoleNotFound: There is no such role.
            LastAdmin: It is the last administrator, by this role.
        """
        argument = (_text("user", user), _text("role", role))
        return (await self._call(AdminMethods.withdraw_role, argument, timeout)).changed

    async def user(self, name: str, *, timeout: Timeout = DEFAULT) -> User:
        """A user, with the roles that it has by itself.

        Raises:
            UserNotFound: There is no such user.
        """
        return await self._call(AdminMethods.user, (_text("name", name),), timeout)

    async def users(self, *, timeout: Timeout = DEFAULT) -> AsyncGenerator[User, None]:
        """Iterate over the users in the order of their names. The node gives up to 1,000 with each call."""
        async for user in self._rows(AdminMethods.users, timeout):
            yield user

    async def set_quota(
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
        of it, and without any the quota is removed. Only an administrator may. Returns whether something has changed.

        A key counts for the user who wrote it last, and a token for the user who made it where that has a quota, or for
        the one that `add_token` names. A change that would take more than the quota leaves is ``QuotaExceeded``, and
        a change that adds nothing goes on.

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
        given = {"keys": keys, "bytes": size, "watches": watches, "leases": leases, "claim": claim}
        options = {name: each for name, each in given.items() if each is not None}
        argument = (_text("user", user), *((options,) if options else ()))
        return (await self._call(AdminMethods.set_quota, argument, timeout)).changed

    async def quota(self, user: str, *, timeout: Timeout = DEFAULT) -> UserQuota | None:
        """The quota of a user with what counts for it; None for a user that has none.

        Raises:
            UserNotFound: There is no such user.
        """
        found = await self._call(AdminMethods.quota, (_text("user", user),), timeout)
        return None if found.limit is None or found.used is None else UserQuota(found.limit, found.used)

    async def add_role(self, name: str, *, parents: Iterable[str] = (), timeout: Timeout = DEFAULT) -> None:
        """Add a role, which has the grants of its parents.

        Raises:
            RoleExists: There is such a role.
            RoleNotFound: There is no such parent.
        """
        await self._call(AdminMethods.add_role, (_text("name", name), _texts("parents", parents)), timeout)

    async def remove_role(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Remove a role. Users, tokens and roles that have it lose it.

        Raises:
            RoleNotFound: There is no such role.
            ProtectedRole: It is ``admin``.
            LastAdmin: The last administrator is one by this role.
        """
        await self._call(AdminMethods.remove_role, (_text("name", name),), timeout)

    async def add_parent(self, role: str, parent: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Give a role the grants of another one. Returns whether it was not its parent.

        Raises:
            RoleNotFound: There is no such role or parent.
            ProtectedRole: The role is ``admin``.
            InvalidArgument: The parent contains the role.
        """
        argument = (_text("role", role), _text("parent", parent))
        return (await self._call(AdminMethods.add_parent, argument, timeout)).changed

    async def remove_parent(self, role: str, parent: str, *, timeout: Timeout = DEFAULT) -> bool:
        """Take from a role the grants of another one. Returns whether it was its parent.

        Raises:
            RoleNotFound: There is no such role or parent.
            ProtectedRole: The role is ``admin``.
            LastAdmin: The last administrator is one by this parent.
        """
        argument = (_text("role", role), _text("parent", parent))
        return (await self._call(AdminMethods.remove_parent, argument, timeout)).changed

    async def role(self, name: str, *, timeout: Timeout = DEFAULT) -> RoleGrants:
        """A role, with its parents and its own grants.

        Raises:
            RoleNotFound: There is no such role.
        """
        found = await self._call(AdminMethods.role, (_text("name", name),), timeout)
        return RoleGrants(name, found.parents, dict(found.grants))

    async def roles(self, *, timeout: Timeout = DEFAULT) -> AsyncGenerator[RoleInfo, None]:
        """Iterate over the roles in the order of their names, the built-in ``admin`` among them."""
        async for role in self._rows(AdminMethods.roles, timeout):
            yield role

    async def add_grant(
        self, role: str, permissions: Iterable[str], pattern: str, *, timeout: Timeout = DEFAULT
    ) -> bool:
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
        argument = (_text("role", role), _texts("permissions", permissions), _text("pattern", pattern))
        return (await self._call(AdminMethods.add_grant, argument, timeout)).changed

    async def remove_grant(
        self, role: str, permissions: Iterable[str], pattern: str, *, timeout: Timeout = DEFAULT
    ) -> bool:
        """Take permissions from the grant of a role on just this pattern. Returns whether it gives less than before.

        Raises:
            RoleNotFound: There is no such role.
            ProtectedRole: The role is ``admin``.
        """
        argument = (_text("role", role), _texts("permissions", permissions), _text("pattern", pattern))
        return (await self._call(AdminMethods.remove_grant, argument, timeout)).changed

    async def add_token(
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
        token = _token(name)
        given = _texts("roles", roles)
        options: dict[str, Any] = {}
        if ttl is not None:
            options["expires_at_ms"] = int(time.time() * 1000) + ttl_ms_of(ttl)
        if quota_of is not None:
            options["quota_of"] = _text("quota_of", quota_of)
        secret = secrets.token_urlsafe(_SECRET_SIZE)
        verifier = await self._derived(secret)
        await self._call(AdminMethods.add_token, (token, verifier, given, *((options,) if options else ())), timeout)
        return NewToken(token, secret, options["expires_at_ms"] / 1000 if ttl is not None else None)

    async def remove_token(self, name: str, *, timeout: Timeout = DEFAULT) -> None:
        """Revoke a token: from now on it is good for nothing.

        Raises:
            UserNotFound: There is no such token.
        """
        await self._call(AdminMethods.remove_token, (_token(name),), timeout)

    async def tokens(self, *, timeout: Timeout = DEFAULT) -> AsyncGenerator[Token, None]:
        """Iterate over the tokens in the order of their names. One that has expired stays until another is made."""
        async for token in self._rows(AdminMethods.tokens, timeout):
            expires_at_ms = token.expires_at_ms
            yield Token(token.name, token.roles, None if expires_at_ms is None else expires_at_ms / 1000)

    async def _rows(self, method: Method[NamedRows[NamedT]], timeout: Timeout) -> AsyncGenerator[NamedT, None]:
        """The rows of a list, a page with each call."""
        after, more = "", True
        while more:
            page = await self._call(method, ({"after": after},), timeout)
            for row in page.rows:
                yield row
            after, more = page.rows[-1].name if page.rows else after, page.more and bool(page.rows)

    async def _verifier(self, password: str, user: str) -> tuple[bytes, int, bytes, bytes]:
        """The verifier of a user's new password. Raises ``PasswordPolicy``."""
        if not isinstance(password, str):
            raise TypeError(f"a password is a str, not {type(password).__name__}")
        refused = password_refusal(password, user)
        if refused is not None:
            raise refused.exception()
        return await self._derived(password)

    async def _derived(self, password: str) -> tuple[bytes, int, bytes, bytes]:
        """The verifier of a password, in a thread: it takes 160 ms of CPU.

        Raises ``ConfigurationError`` where strangers could read it on its way, because it can be guessed at.
        """
        if not self._channel.private:
            raise ConfigurationError(
                "a new password or token needs a connection with TLS (hapteras://), or one on the node's own machine: "
                "on any other its verifier could be read on the way"
            )
        made = await asyncio.to_thread(new_verifier, password, os.urandom)
        return (made.salt, made.iterations, made.stored_key, made.server_key)


def _text(argument: str, text: Any) -> str:
    """A text as plain ``str``. Raises TypeError, and ValueError for one that is no UTF-8."""
    if not isinstance(text, str):
        raise TypeError(f"{argument} is a str, not {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{argument} is no text: it has half of a surrogate pair") from None
    return str.__str__(text)


def _texts(argument: str, texts: Iterable[str]) -> list[str]:
    if isinstance(texts, str | bytes):
        raise TypeError(f"{argument} is an iterable of texts, not one of them")
    return [_text(argument, each) for each in texts]


def _token(name: str) -> str:
    text = _text("name", name)
    return text if text.startswith(TOKEN_PREFIX) else TOKEN_PREFIX + text
