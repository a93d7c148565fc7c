"""The commands of the ``access`` part: users, roles, grants and tokens change, in the order of the log.

Each is judged on the tables as it finds them: two nodes that apply the same log come to the same users, and two
administrators that remove each other at one time leave one of them.

So is the user that gives it (`haptera.state.access_giving`): by all that it may do at the command's place in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from haptera.access_rules import ADMIN_ROLE
from haptera.errors import Code, Failure, failure
from haptera.key_rules import invalid
from haptera.state import limits
from haptera.state.access import (
    StoredRole,
    StoredToken,
    StoredUser,
    in_order,
    is_administrator,
    powerful_roles,
    reached,
)
from haptera.state.access_giving import giving_refusal
from haptera.state.access_operations import AccessChange, RemoveRole, RemoveUser, SetQuota
from haptera.state.grant_patterns import is_short, rests_size
from haptera.state.key_ranges import key_range
from haptera.state.operation_sets import method_of
from haptera.state.quotas import Quota

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from haptera.state import access_operations as operations
    from haptera.state.access import Access
    from haptera.state.entries import Entries
    from haptera.state.results import Result
    from haptera.state.sliced_work import Steps


#: Units of work of a user or a token that is looked at, and of a role that is taken from one.
_LOOK_WORK: Final = 1
_TAKE_WORK: Final = 12


class AccessCommands:
    """A method for each command, named as in its tag. Its result is [whether it has changed something].

    ``rehearsed`` asks for the result of a command that changes nothing, and for None of one that does. The time is that
    of ``entries``, of the entry that is applied or by the clock of reads, and the user that of its events.
    """

    __slots__ = ("_access", "_entries", "_methods")

    def __init__(self, access: Access, entries: Entries) -> None:
        self._access = access
        self._entries = entries
        self._methods: dict[type[AccessChange], Callable[..., Result | None]] = {
            command: getattr(self, method_of(command)[1])
            for command in AccessChange.__subclasses__()
            if not command.in_slices
        }

    def change(self, op: AccessChange, *, rehearsed: bool = False) -> Result | None:
        """The result of a command that its user may give, or 2004."""
        refused = self._refused(op, rehearsed=rehearsed)
        return self._methods[type(op)](op, rehearsed=rehearsed) if refused is None else refused

    def unchanged(self, op: AccessChange) -> Result | None:
        """The result of a change that is made in slices if it changes nothing."""
        refused = self._refused(op, rehearsed=True)
        if refused is not None:
            return refused
        match op:
            case RemoveRole():
                return self._removal_refused(op.role, self._roles_without(op.role))
            case RemoveUser():
                return self._user_removal_refused(op.user)
            case SetQuota():
                return self._quota_unchanged(op)
            case _:
                raise TypeError(op)

    def _refused(self, op: AccessChange, *, rehearsed: bool) -> Failure | None:
        return giving_refusal(self._access, op, self._entries.events.user, self._now_ms(rehearsed))

    def _now_ms(self, rehearsed: bool) -> int:
        entries = self._entries
        return entries.clock() if rehearsed else entries.now_ms

    def add_user(self, op: operations.AddUser, *, rehearsed: bool = False) -> Result | None:
        """A name that is taken is 2007, a missing role 2010, one user too many 3007."""
        users = self._access.users
        refused = _user_exists(op.user) if op.user in users else self._missing(op.roles)
        if refused is not None:
            return refused
        if len(users) >= limits.USERS_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"users_max": limits.USERS_MAX}, outcome="not_applied")
        added = StoredUser(op.verifier, _sorted(op.roles))
        return self._change(rehearsed, users={**users, op.user: added})

    def remove_user(self, op: operations.RemoveUser) -> Steps[Result]:
        """A missing user is 2008, the last administrator 2012. Nothing counts for its quota any more."""
        refused = self._refused(op, rehearsed=False) or self._user_removal_refused(op.user)
        if refused is not None:
            return refused
        yield from self._entries.quotas.drop(op.user)
        users = self._access.users
        self._access.adopt(users={name: user for name, user in users.items() if name != op.user})
        return (True,)

    def _user_removal_refused(self, user: str) -> Failure | None:
        if user not in self._access.users:
            return _user_not_found(user)
        return failure(Code.LAST_ADMIN) if self._was_last(user, None) else None

    def set_quota(self, op: operations.SetQuota) -> Steps[Result]:
        """A missing user is 2008."""
        unchanged = self._refused(op, rehearsed=False) or self._quota_unchanged(op)
        if unchanged is not None:
            return unchanged
        entries, quota = self._entries, _quota_of(op)
        if quota == Quota():
            yield from entries.quotas.drop(op.user)
        else:
            claimed = () if op.claim is None else entries.present(key_range((op.claim,)))
            yield from entries.quotas.assign(op.user, quota, entries.leases, claimed)
        return (True,)

    def _quota_unchanged(self, op: operations.SetQuota) -> Result | None:
        """The result of a quota that a user has got already, or of one for a missing user; else None."""
        if op.user not in self._access.users:
            return _user_not_found(op.user)
        account = self._entries.quotas.accounts.get(op.user)
        before, after = Quota() if account is None else account.quota, _quota_of(op)
        same = before == after and (op.claim is None or after == Quota())
        return (False,) if same else None

    def set_verifier(self, op: operations.SetVerifier, *, rehearsed: bool = False) -> Result | None:
        """A missing user is 2008, the last administrator that would have no verifier 2012."""
        user = self._access.users.get(op.user)
        if user is None:
            return _user_not_found(op.user)
        return self._replace_user(op.user, StoredUser(op.verifier, user.roles, user.disabled), rehearsed)

    def set_disabled(self, op: operations.SetDisabled, *, rehearsed: bool = False) -> Result | None:
        """A missing user is 2008, the last administrator 2012."""
        user = self._access.users.get(op.user)
        if user is None:
            return _user_not_found(op.user)
        return self._replace_user(op.user, StoredUser(user.verifier, user.roles, op.disabled), rehearsed)

    def assign_role(self, op: operations.AssignRole, *, rehearsed: bool = False) -> Result | None:
        """A missing user is 2008, a missing role 2010, one role too many 3007."""
        user = self._access.users.get(op.user)
        if user is None:
            return _user_not_found(op.user)
        refused = self._missing([op.role])
        if refused is not None:
            return refused
        roles = _sorted([*user.roles, op.role])
        if len(roles) > limits.ROLES_HELD_MAX:
            return _too_many_roles()
        return self._replace_user(op.user, StoredUser(user.verifier, roles, user.disabled), rehearsed)

    def withdraw_role(self, op: operations.WithdrawRole, *, rehearsed: bool = False) -> Result | None:
        """A missing user is 2008, a missing role 2010, the last administrator 2012."""
        user = self._access.users.get(op.user)
        if user is None:
            return _user_not_found(op.user)
        refused = self._missing([op.role])
        if refused is not None:
            return refused
        return self._replace_user(
            op.user, StoredUser(user.verifier, _without(user.roles, op.role), user.disabled), rehearsed
        )

    def add_role(self, op: operations.AddRole, *, rehearsed: bool = False) -> Result | None:
        """A name that is taken is 2009, a missing parent 2010, one role too many 3007."""
        access = self._access
        if access.has_role(op.role):
            return failure(Code.ROLE_EXISTS, {"role": op.role})
        refused = self._missing(op.parents)
        if refused is not None:
            return refused
        if len(access.roles) >= limits.ROLES_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"roles_max": limits.ROLES_MAX}, outcome="not_applied")
        return self._change(rehearsed, roles={**access.roles, op.role: StoredRole(_sorted(op.parents))})

    def remove_role(self, op: operations.RemoveRole) -> Steps[Result]:
        """A missing role is 2010, the built-in one 2011; 2012 where the last administrator is one by this role.

        Readers have the tables of before until the last slice, because the tables themselves are not changed.
        """
        access, gone = self._access, op.role
        refused = self._refused(op, rehearsed=False)
        if refused is not None:
            return refused
        roles = self._roles_without(gone)
        yield limits.SLICE_WORK_MAX
        refused = self._removal_refused(gone, roles)
        if refused is not None:
            return refused
        yield limits.SLICE_WORK_MAX
        users, tokens = dict(access.users), dict(access.tokens)
        tables: tuple[dict[str, Any], ...] = (users, tokens)
        for table in tables:
            work = 0
            for name, holder in [*table.items()]:
                work += _LOOK_WORK
                if gone in holder.roles:
                    table[name] = replace(holder, roles=_without(holder.roles, gone))
                    work += _TAKE_WORK
                if work >= limits.SLICE_WORK_MAX:
                    yield work
                    work = 0
        access.adopt(users=users, roles=roles, tokens=tokens)
        return (True,)

    def _roles_without(self, gone: str) -> dict[str, StoredRole]:
        return {
            name: StoredRole(_without(role.parents, gone), role.grants) if gone in role.parents else role
            for name, role in self._access.roles.items()
            if name != gone
        }

    def _removal_refused(self, gone: str, roles: Mapping[str, StoredRole]) -> Failure | None:
        """Why a role is not removed, which would leave these, or None."""
        refused = self._unchangeable(gone)
        if refused is None and self._leaves_none(gone, roles):
            refused = failure(Code.LAST_ADMIN)
        return refused

    def add_parent(self, op: operations.AddParent, *, rehearsed: bool = False) -> Result | None:
        """A missing role is 2010, the built-in one 2011, a parent that contains the role 3003, one too many 3007."""
        refused = self._unchangeable(op.role) or self._missing([op.parent])
        if refused is not None:
            return refused
        role = self._access.roles[op.role]
        if op.role in reached(self._access.roles, [op.parent]):
            return invalid("parent", "contains the role itself")
        parents = _sorted([*role.parents, op.parent])
        if len(parents) > limits.ROLES_HELD_MAX:
            return _too_many_roles()
        return self._replace_role(op.role, StoredRole(parents, role.grants), rehearsed)

    def remove_parent(self, op: operations.RemoveParent, *, rehearsed: bool = False) -> Result | None:
        """A missing role is 2010, the built-in one 2011; 2012 where the last administrator is one by this parent."""
        refused = self._unchangeable(op.role) or self._missing([op.parent])
        if refused is not None:
            return refused
        roles = self._access.roles
        less = StoredRole(_without(roles[op.role].parents, op.parent), roles[op.role].grants)
        if less != roles[op.role] and self._leaves_none(op.parent, {**roles, op.role: less}):
            return failure(Code.LAST_ADMIN)
        return self._replace_role(op.role, less, rehearsed)

    def add_grant(self, op: operations.AddGrant, *, rehearsed: bool = False) -> Result | None:
        """A missing role is 2010, the built-in one 2011, one grant too many, or a pattern beyond their size, 3007."""
        refused = self._unchangeable(op.role)
        if refused is not None:
            return refused
        role = self._access.roles[op.role]
        grants = dict(role.grants)
        if op.pattern not in grants and self._access.grants >= limits.GRANTS_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"grants_max": limits.GRANTS_MAX}, outcome="not_applied")
        if op.pattern not in grants and not self._has_room_for(op.pattern):
            details = {"grant_rests_size_max": limits.GRANT_RESTS_SIZE_MAX}
            return failure(Code.TOO_MANY_REQUESTS, details, outcome="not_applied")
        grants[op.pattern] = in_order((*grants.get(op.pattern, ()), *op.permissions))
        return self._replace_role(op.role, StoredRole(role.parents, tuple(sorted(grants.items()))), rehearsed)

    def _has_room_for(self, pattern: str) -> bool:
        """Whether one key is compared with few enough patterns when this one is granted, too."""
        if is_short(pattern):
            return True
        granted = (each for role in self._access.roles.values() for each, _ in role.grants)
        return rests_size((pattern, *granted)) <= limits.GRANT_RESTS_SIZE_MAX

    def remove_grant(self, op: operations.RemoveGrant, *, rehearsed: bool = False) -> Result | None:
        """A missing role is 2010, the built-in one 2011."""
        refused = self._unchangeable(op.role)
        if refused is not None:
            return refused
        role = self._access.roles[op.role]
        grants = dict(role.grants)
        left = in_order(set(grants.pop(op.pattern, ())) - set(op.permissions))
        if left:
            grants[op.pattern] = left
        return self._replace_role(op.role, StoredRole(role.parents, tuple(sorted(grants.items()))), rehearsed)

    def add_token(self, op: operations.AddToken, *, rehearsed: bool = False) -> Result | None:
        """A name that is taken is 2007, a missing role 2010, one token too many 3007, a missing user of its quota 2008.
        Tokens that have expired go.
        """
        access, now_ms = self._access, self._now_ms(rehearsed)
        alive = {name: token for name, token in access.tokens.items() if not token.expired(now_ms)}
        refused = _user_exists(op.token) if op.token in alive else self._missing(op.roles)
        if refused is not None:
            return refused
        if len(alive) >= limits.TOKENS_MAX:
            return failure(Code.TOO_MANY_REQUESTS, {"tokens_max": limits.TOKENS_MAX}, outcome="not_applied")
        payer = op.quota_of or self._inherited()
        if op.quota_of is not None and op.quota_of not in access.users:
            return _user_not_found(op.quota_of)
        added = StoredToken(op.verifier, _sorted(op.roles), op.expires_at_ms, payer)
        return self._change(rehearsed, tokens={**alive, op.token: added})

    def _inherited(self) -> str:
        """The user for whose quota a token counts that does not say so: the one who makes it, if that has a quota."""
        maker, quotas = self._entries.events.user, self._entries.quotas
        return quotas.payer(maker) if maker in self._access.tokens or maker in quotas.accounts else ""

    def remove_token(self, op: operations.RemoveToken, *, rehearsed: bool = False) -> Result | None:
        """A missing token is 2008."""
        tokens = self._access.tokens
        if op.token not in tokens:
            return _user_not_found(op.token)
        return self._change(rehearsed, tokens={name: token for name, token in tokens.items() if name != op.token})

    def set_node_secret(self, op: operations.SetNodeSecret, *, rehearsed: bool = False) -> Result | None:
        """A store that has one keeps it, so that two first starts of one store agree."""
        if self._access.secret:
            return (False,)
        return self._change(rehearsed, secret=op.secret)

    def _replace_user(self, name: str, user: StoredUser, rehearsed: bool) -> Result | None:
        users = self._access.users
        if self._was_last(name, user):
            return failure(Code.LAST_ADMIN)
        return (False,) if users[name] == user else self._change(rehearsed, users={**users, name: user})

    def _replace_role(self, name: str, role: StoredRole, rehearsed: bool) -> Result | None:
        roles = self._access.roles
        return (False,) if roles[name] == role else self._change(rehearsed, roles={**roles, name: role})

    def _change(
        self,
        rehearsed: bool,
        *,
        users: Mapping[str, StoredUser] | None = None,
        roles: Mapping[str, StoredRole] | None = None,
        tokens: Mapping[str, StoredToken] | None = None,
        secret: bytes | None = None,
    ) -> Result | None:
        """Put these tables in the place of the others."""
        if rehearsed:
            return None
        self._access.adopt(users=users, roles=roles, tokens=tokens, secret=secret)
        return (True,)

    def _was_last(self, name: str, after: StoredUser | None) -> bool:
        """Whether a user is the last administrator, and would be none as ``after``, or gone."""
        users, powerful = self._access.users, self._access.powerful
        if not is_administrator(users[name], powerful) or (after is not None and is_administrator(after, powerful)):
            return False
        return not any(is_administrator(user, powerful) for other, user in users.items() if other != name)

    def _leaves_none(self, taken: str, roles: Mapping[str, StoredRole]) -> bool:
        """Whether these roles, from which a role or a parent of this name is taken, make no user an administrator more.

        A role that is gone makes none, so the users may still have it here.
        """
        users, before = self._access.users.values(), self._access.powerful
        if taken not in before:
            return False
        after = powerful_roles(roles)
        if any(is_administrator(user, after) for user in users):
            return False
        return any(is_administrator(user, before) for user in users)

    def _missing(self, roles: Iterable[str]) -> Failure | None:
        """Why some roles cannot be given, or None."""
        for role in roles:
            if not self._access.has_role(role):
                return failure(Code.ROLE_NOT_FOUND, {"role": role})
        return None

    def _unchangeable(self, role: str) -> Failure | None:
        """Why a role cannot be changed, or None."""
        return failure(Code.PROTECTED_ROLE, {"role": role}) if role == ADMIN_ROLE else self._missing([role])


def _quota_of(op: operations.SetQuota) -> Quota:
    return Quota(op.keys, op.size, op.watches, op.leases)


def _too_many_roles() -> Failure:
    return failure(Code.TOO_MANY_REQUESTS, {"roles_held_max": limits.ROLES_HELD_MAX}, outcome="not_applied")


def _user_exists(user: str) -> Failure:
    return failure(Code.USER_EXISTS, {"user": user})


def _user_not_found(user: str) -> Failure:
    return failure(Code.USER_NOT_FOUND, {"user": user})


def _sorted(roles: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(roles)))


def _without(roles: tuple[str, ...], role: str) -> tuple[str, ...]:
    if role not in roles:
        return roles
    at = roles.index(role)
    return roles[:at] + roles[at + 1 :]
