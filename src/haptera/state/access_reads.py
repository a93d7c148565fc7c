"""The reads of the part ``access``: its users, roles and tokens, without what is secret in them."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, Any, Final

from haptera.access_rules import ADMIN_ROLE, EVERY_KEY, PERMISSIONS
from haptera.errors import Code, failure
from haptera.state import limits
from haptera.state.access import StoredRole

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from haptera.state import access_operations as operations
    from haptera.state.access import Access, StoredToken, StoredUser
    from haptera.state.quotas import Quotas
    from haptera.state.results import Result

_BUILT_IN: Final = StoredRole((), ((EVERY_KEY, PERMISSIONS),))


class AccessReads:
    """A method for each read, named as in its tag."""

    __slots__ = ("_access", "_names", "_quotas")

    def __init__(self, access: Access, quotas: Quotas) -> None:
        self._access = access
        self._quotas = quotas
        #: The names of each table that was listed, in order, with the table: another one stands there after a change.
        self._names: dict[str, tuple[Mapping[str, Any], list[str]]] = {}

    def users(self, op: operations.ListUsers) -> Result:
        """[[[user, has a password, disabled, [role, …]], …], more]."""
        return self._page("users", self._access.users, op.after, op.limit, _user_row)

    def user(self, op: operations.FindUser) -> Result:
        """[user, has a password, disabled, [role, …]]; a missing user is 2008."""
        user = self._access.users.get(op.user)
        return failure(Code.USER_NOT_FOUND, {"user": op.user}) if user is None else _user_row(op.user, user)

    def quota(self, op: operations.FindQuota) -> Result:
        """[[keys, bytes, watches, leases], the same of what counts for it]; [nil, nil] for a user without a quota, of
        whom nothing is counted; a missing user is 2008.
        """
        if op.user not in self._access.users:
            return failure(Code.USER_NOT_FOUND, {"user": op.user})
        account = self._quotas.accounts.get(op.user)
        if account is None:
            return (None, None)
        return (account.quota, (account.keys, account.size, self._quotas.watches_of(op.user), account.leases))

    def roles(self, op: operations.ListRoles) -> Result:
        """[[[role, [parent, …], number of patterns], …], more]: the built-in role stands among the others."""
        return self._page("roles", self._access.roles, op.after, op.limit, _role_row, ADMIN_ROLE)

    def role(self, op: operations.FindRole) -> Result:
        """[[parent, …], [[pattern, [permission, …]], …]]; a missing role is 2010."""
        role = _BUILT_IN if op.role == ADMIN_ROLE else self._access.roles.get(op.role)
        return failure(Code.ROLE_NOT_FOUND, {"role": op.role}) if role is None else (role.parents, role.grants)

    def tokens(self, op: operations.ListTokens) -> Result:
        """[[[token, expires_at_ms or nil, [role, …]], …], more]: an expired one is there until another is made."""
        return self._page("tokens", self._access.tokens, op.after, op.limit, _token_row)

    def _page(
        self,
        kind: str,
        table: Mapping[str, Any],
        after: str | None,
        limit: int | None,
        row: Callable[[str, Any], tuple[Any, ...]],
        *built_in: str,
    ) -> Result:
        known = self._names.get(kind)
        if known is None or known[0] is not table:
            known = self._names[kind] = (table, sorted([*table, *built_in]))
        names = known[1]
        start = 0 if after is None else bisect_right(names, after)
        most = limits.ACCESS_LISTED_MAX if limit is None else min(limit, limits.ACCESS_LISTED_MAX)
        rows: list[tuple[Any, ...]] = []
        size = 0
        for name in names[start : start + most]:
            found = row(name, table.get(name, _BUILT_IN))
            rows.append(found)
            size += _ROW_SIZE + len(name) + sum(map(len, next(part for part in found if type(part) is tuple)))
            if size >= limits.ACCESS_PAGE_SIZE:
                break
        return (tuple(rows), start + len(rows) < len(names))


#: Characters of a row beside those of its names.
_ROW_SIZE: Final = 16


def _user_row(name: str, user: StoredUser) -> tuple[Any, ...]:
    return (name, user.verifier is not None, user.disabled, user.roles)


def _role_row(name: str, role: StoredRole) -> tuple[Any, ...]:
    return (name, role.parents, len(role.grants))


def _token_row(name: str, token: StoredToken) -> tuple[Any, ...]:
    return (name, token.expires_at_ms, token.roles)
