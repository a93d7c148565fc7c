"""The rule that a user gives no more than it has, judged where a command stands in the log.

A command is judged by all that its roles, or its grant, would give or take (spec/storage-format.md, section 12.3). So
the permission `user_admin` makes no user an administrator, neither its holder nor another: a new password, for
instance, is as good as all that its user may do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from haptera.access_rules import ADMIN_ROLE, LOCAL_USER
from haptera.errors import Code, failure
from haptera.state import access_operations as operations
from haptera.state.access import EVERYTHING, reached
from haptera.state.grant_patterns import is_one_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from haptera.access_rules import Permission
    from haptera.errors import Failure
    from haptera.state.access import Access
    from haptera.state.permits import Permits

#: The users that no table has and that may do everything: the anonymous one, which comes in where no proof is asked for
#: and nowhere else, and the one of the local socket.
_UNRESTRICTED: Final = frozenset({"", LOCAL_USER})


def giving_refusal(access: Access, op: operations.AccessChange, user: str, now_ms: int) -> Failure | None:
    """Return 2004 for a command by which a user would give, or take, more than it has at a time."""
    if user in _UNRESTRICTED:
        return None
    ends = access.expires_at_ms(user)
    if (
        ends is not None
        and isinstance(op, operations.AddToken)
        and (op.expires_at_ms is None or op.expires_at_ms > ends)
    ):
        return failure(Code.PERMISSION_DENIED, {"permission": "user_admin", "expires_at_ms": ends})
    permits = access.permits(user, now_ms)
    if permits is EVERYTHING or _is_own_password(access, op, user):
        return None
    if _is_of_quotas(access, op, user) and not permits.has("admin"):
        return _denied("admin")
    if not permits.has("user_admin"):
        return _denied("user_admin")
    if isinstance(op, operations.AddGrant):
        return _lacking(permits, [(op.pattern, op.permissions)])
    concerned = _ROLES.get(type(op))
    if concerned is None:  # a command that only the node gives
        return _denied("admin")
    roles = access.roles
    held = reached(roles, concerned(access, op))
    if ADMIN_ROLE in held:
        return _denied("admin")
    return _lacking(permits, (grant for name in sorted(held & roles.keys()) for grant in roles[name].grants))


def _is_own_password(access: Access, op: operations.AccessChange, user: str) -> bool:
    """Whether a user that may come in gives itself another password."""
    if not isinstance(op, operations.SetVerifier) or op.user != user or op.verifier is None:
        return False
    own = access.users.get(user)
    return own is not None and not own.disabled


def _is_of_quotas(access: Access, op: operations.AccessChange, user: str) -> bool:
    """Whether a command decides for whose quota somebody counts, or how much that is: an administrator's decision,
    because a quota that its user could change, or leave, would be none.
    """
    if isinstance(op, operations.AddToken):
        return op.quota_of not in (None, access.payer(user))
    return isinstance(op, operations.SetQuota)


def _lacking(permits: Permits, grants: Iterable[tuple[str, Iterable[Permission]]]) -> Failure | None:
    for pattern, permissions in grants:
        for permission in permissions:
            if not permits.holds(permission, pattern):
                return _not_held(permission, pattern)
    return None


def _denied(permission: str) -> Failure:
    return failure(Code.PERMISSION_DENIED, {"permission": permission})


def _not_held(permission: str, pattern: str) -> Failure:
    if is_one_key(pattern):
        return failure(Code.PERMISSION_DENIED, {"permission": permission, "key": pattern})
    return failure(Code.PERMISSION_DENIED, {"permission": permission, "pattern": pattern})


def _of_user(access: Access, op: Any) -> Iterable[str]:
    user = access.users.get(op.user)
    return () if user is None else user.roles


def _of_token(access: Access, op: Any) -> Iterable[str]:
    token = access.tokens.get(op.token)
    return () if token is None else token.roles


#: The roles by which a command is judged: those that it gives, those of the user that it changes, or the one that it
#: makes less.
_ROLES: Final[dict[type[operations.AccessChange], Callable[[Access, Any], Iterable[str]]]] = {
    operations.AddUser: lambda _, op: op.roles,
    operations.RemoveUser: _of_user,
    operations.SetVerifier: _of_user,
    operations.SetDisabled: _of_user,
    operations.AssignRole: lambda _, op: (op.role,),
    operations.WithdrawRole: _of_user,
    operations.AddRole: lambda _, op: op.parents,
    operations.RemoveRole: lambda _, op: (op.role,),
    operations.AddParent: lambda _, op: (op.parent,),
    operations.RemoveParent: lambda _, op: (op.role,),
    operations.RemoveGrant: lambda _, op: (op.role,),
    operations.SetQuota: lambda _, op: (),  # the permission `admin` was asked for
    operations.AddToken: lambda _, op: op.roles,
    operations.RemoveToken: _of_token,
}
