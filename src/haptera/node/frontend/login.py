"""The login of a caller of a dialect with a password that travels as it is (spec/protocol.md, section 5.1, PLAIN)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from haptera.access_rules import is_password, is_token_name, is_user_name
from haptera.errors import Code, failure
from haptera.peer import PLAIN, WORK, Identity, place_of

if TYPE_CHECKING:
    import asyncio

    from haptera.errors import Failure
    from haptera.node.authenticator import NodeAuthenticator
    from haptera.node.frontend.caller import DialectCaller

_logger = logging.getLogger(__name__)

_TOO_MUCH_WORK: Final = "too many passwords are worked on"
_WRONG: Final = "the password is wrong, or the user is unknown or may not come in"
_CHANGED: Final = "the user was changed in the middle of the login"
_GONE: Final = "the connection ended in the middle of the login"


async def log_in(
    caller: DialectCaller, authenticator: NodeAuthenticator, loop: asyncio.AbstractEventLoop, name: str, password: str
) -> Failure | None:
    """Judge a password, and give the caller its identity where it is right.

    Returns 2002 where it is wrong, for any reason, 2003 after too many failures, 3007 where too much of such work
    waits. A failed attempt leaves the identity as it was.
    """
    place = place_of(caller.remote, caller.credentials)
    if not WORK.has_room(place):  # before the attempt begins: a flood is not counted as the failures of others
        return failure(Code.TOO_MANY_REQUESTS, {"reason": _TOO_MUCH_WORK}, outcome="not_applied")
    known = name if is_user_name(name) or is_token_name(name) else ""
    refused = authenticator.refuses(caller, known)
    if refused is not None:
        return refused
    verifier, admitted = judged_by = authenticator.login(known)
    reason: str | None = _GONE
    try:
        checking = WORK.run(loop, place, lambda: is_password(password) and verifier.accepts(password))
        if checking is None:  # another loop of this process was faster
            reason = _TOO_MUCH_WORK
        elif not await checking or not admitted:
            reason = _WRONG
        else:
            # A proof counts where it is still the password of a user that may come in.
            reason = None if authenticator.login(known) == judged_by else _CHANGED
    except Exception as error:
        _logger.error("login_failed", exc_info=error)
        reason = "the check of the password has failed"
    finally:
        if reason is None:
            caller.identity = Identity(known, PLAIN)
        authenticator.ended(caller, known, PLAIN, reason)
    return None if reason is None else failure(Code.AUTHENTICATION_FAILED, outcome="not_applied")
