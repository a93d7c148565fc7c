"""The end of a command that failed: its exit code and its message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from haptera import defaults
from haptera.cli import output
from haptera.cli.exit_codes import CANNOT_CONNECT, FAILED, HELD_BY_OTHERS, LOST, NO, REFUSED, UNKNOWN, USAGE
from haptera.errors import (
    Code,
    ConfigurationError,
    ConnectionLost,
    HapteraError,
    LockLost,
    Outcome,
    ProtocolError,
    RemoteProtocolError,
    ServerError,
    WaitTimeout,
)

#: The store answered, and the answer is no: a missing key, a condition that failed, a token of a lock that is lost.
ANSWERS_NO = frozenset(
    {
        Code.KEY_NOT_FOUND,
        Code.VERSION_MISMATCH,
        Code.KEY_EXISTS,
        Code.NOT_AN_INTEGER,
        Code.INTEGER_OVERFLOW,
        Code.LEASE_NOT_FOUND,
        Code.FENCED,
        Code.USER_EXISTS,
        Code.USER_NOT_FOUND,
        Code.ROLE_EXISTS,
        Code.ROLE_NOT_FOUND,
    }
)

#: The store will never take this: a key or value outside its limits.
WRONG_ARGUMENT = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.MESSAGE_TOO_LARGE,
        Code.INVALID_KEY,
        Code.VALUE_TOO_LARGE,
        Code.TRANSACTION_TOO_LARGE,
    }
)

#: The next step behind an error: a line under it.
NEXT_STEPS: dict[int, str] = {
    Code.AUTHENTICATION_REQUIRED: "name a user: --user NAME, or HAPTERA_USER, with the password of --password-file, "
    "HAPTERA_PASSWORD or the prompt; in the directory in which a node runs, its own user needs none",
    Code.AUTHENTICATION_FAILED: "`haptera passwd USER` replaces a lost password, in the directory where the node was "
    "started",
    Code.UNSUPPORTED_MECHANISM: "leave out the user and the password where no login is asked for, or name an address "
    "of the node that asks for one: --url haptera://HOST:PORT",
    Code.PERMISSION_DENIED: "`haptera whoami` shows the user of this command and its roles",
    Code.QUOTA_EXCEEDED: "delete what is not needed any more; `haptera user show USER` shows an administrator what is "
    "used, and `haptera user quota USER` gives more",
    Code.PASSWORD_POLICY: "a sentence of several words is long and easy to remember",
    Code.USER_EXISTS: "`haptera passwd USER` gives a user another password; `haptera token revoke NAME` ends a token",
    Code.USER_NOT_FOUND: "`haptera user list` shows the users, `haptera token list` the tokens",
    Code.ROLE_EXISTS: "`haptera role show ROLE` shows its grants",
    Code.ROLE_NOT_FOUND: "`haptera role list` shows the roles",
    Code.PROTECTED_ROLE: "another role may have admin as its parent, and grants of its own",
    Code.LAST_ADMIN: "make another user an administrator first: `haptera user assign USER admin`",
}

#: The next step where a server takes connections and says nothing. A Redis, for instance, and an HTTP server wait for
#: the end of a line.
SILENT_SERVER = (
    "a server that speaks another protocol, as Redis and HTTP servers do, waits without a word; else the node is "
    "frozen, or has too much to do"
)

#: The next step where nothing listens at the place that is taken where none is named.
NO_NODE = "`haptera serve` starts a node in this directory; --url or HAPTERA_URL names one elsewhere"

#: A login is missing, or has failed: of the server it is known that it answers.
OF_LOGIN = frozenset(
    {
        Code.AUTHENTICATION_REQUIRED,
        Code.AUTHENTICATION_FAILED,
        Code.AUTHENTICATION_LOCKED,
        Code.UNSUPPORTED_MECHANISM,
    }
)

EFFECTS: dict[Outcome, str] = {
    "not_applied": "",
    "unknown": "; the change may have been applied",
    "applied": "; the change was applied",
}


@dataclass(frozen=True)
class Target:
    """The store of a command: ``url`` is where it was looked for, ``answered`` whether it ever answered, and
    ``connected`` whether a server took a connection there.
    """

    url: str
    answered: bool
    connected: bool = False


def exit_code(error: HapteraError, *, change: bool = False, target: Target | None = None) -> int:
    """The exit code for ``error``. ``change`` says that the command would have changed the store."""
    if change and error.outcome == "unknown":
        return UNKNOWN
    if isinstance(error, ConfigurationError):
        return USAGE
    if isinstance(error, WaitTimeout | LockLost):
        return HELD_BY_OTHERS if isinstance(error, WaitTimeout) else LOST
    if isinstance(error, ConnectionLost):
        said = error.failure  # a server that refuses the connection may say why
        return REFUSED if said is not None and 2000 <= said.code < 3000 else CANNOT_CONNECT
    if isinstance(error, ServerError):
        if error.code in ANSWERS_NO:
            return NO
        if error.code in WRONG_ARGUMENT:
            return USAGE
        if 2000 <= error.code < 3000:
            return REFUSED
        if error.code == Code.DEADLINE_EXCEEDED and target is not None and not target.answered:
            return CANNOT_CONNECT
    return FAILED


def described(error: BaseException, target: Target | None = None) -> str:
    """One line about an error: ``KEY_NOT_FOUND (4001): the key does not exist: 'k'``.

    With ``target`` an error that leaves open which server is meant names it, and says whether it ever answered.
    """
    if target is not None and _names_no_host(error, target):
        return f"{described(error)}; {_told_of(target, error)}"
    if isinstance(error, ConnectionLost) or not isinstance(error, ServerError):
        return str(error)
    text = f"{error.name} ({error.code}): {error.message}"
    details = dict(error.details)
    key = details.pop("key", None)
    if key is not None:
        text += f": {key!r}"
    if details:
        text += f" ({', '.join(f'{name} {value!r}' for name, value in details.items())})"
    return text


def fields(error: BaseException, target: Target | None = None) -> dict[str, Any]:
    """An error as ``--json`` has it."""
    told = _fields(error)
    if target is not None and _concerns_server(error):
        told |= {"server": target.url, "answered": target.answered or _is_of_login(error)}
    return told


def _told_of(target: Target, error: BaseException) -> str:
    if _is_of_login(error) or _was_refused(error):
        return f"the server is {target.url}"
    if target.answered:
        return f"{target.url} had answered before"
    return f"{target.url} {'took the connection and' if target.connected else 'has'} never answered"


def _was_refused(error: BaseException) -> bool:
    """Whether a server has said something, be it in another protocol."""
    if not isinstance(error, ConnectionLost):
        return False
    return error.failure is not None or isinstance(error.__cause__, RemoteProtocolError)


def _fields(error: BaseException) -> dict[str, Any]:
    if isinstance(error, ServerError | ProtocolError):
        return {"name": error.name, "code": error.code, "message": error.message, "details": error.details}
    if isinstance(error, ConnectionLost) and error.failure is not None:
        said = error.failure
        return {"name": said.name, "code": said.code, "message": str(error), "details": said.details}
    return {"message": str(error)}


def tell(error: HapteraError, *, change: bool = False, target: Target | None = None, help_: str = "") -> int:
    """Report the failure, and whether a change was applied. Returns the exit code.

    ``help_`` is the next step, where it is known better than by the code of the error.
    """
    code = exit_code(error, change=change, target=target)
    text, told = described(error, target), fields(error, target)
    if change:
        text += EFFECTS[error.outcome]
        told["outcome"] = error.outcome
    output.error(text, told, code, help_=help_ or next_step(error, target))
    return code


def next_step(error: BaseException, target: Target | None = None) -> str:
    """The next step behind the error, or an empty text."""
    if isinstance(error, ConnectionLost) and target is not None and _found_nothing(error, target):
        return NO_NODE
    if not isinstance(error, ServerError):
        return ""
    if error.code == Code.DEADLINE_EXCEEDED and target is not None and target.connected and not target.answered:
        return SILENT_SERVER
    return NEXT_STEPS.get(error.code, "")


def _found_nothing(error: ConnectionLost, target: Target) -> bool:
    return target.url == defaults.URL and not (target.answered or target.connected or _was_refused(error))


def _concerns_server(error: BaseException) -> bool:
    """Whether the reason is a server that cannot be reached, answers too late, or is perhaps another than was meant."""
    if isinstance(error, ConnectionLost) or _is_of_login(error):
        return True
    return isinstance(error, ServerError) and error.code == Code.DEADLINE_EXCEEDED


def _is_of_login(error: BaseException) -> bool:
    """Whether a server has answered, and a login is missing or does not succeed."""
    return isinstance(error, ServerError) and error.code in OF_LOGIN


def _names_no_host(error: BaseException, target: Target) -> bool:
    """Whether the text of such an error leaves open which server is meant."""
    return _concerns_server(error) and target.url not in str(error)
