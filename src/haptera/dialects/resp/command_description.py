"""The replies of COMMAND: each command as its row of the table describes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.command_arguments import arguments_of
from haptera.dialects.resp.reply_encoding import EMPTY_ARRAY, array, integer, map_of, set_of, simple, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.dialects.resp.reply_encoding import Version
    from haptera.dialects.resp.steps import Command

#: SET gives the value of before where its option GET stands; a call without that only writes.
SET_ROLE: Final = "RW access update variable_flags"
SET_ROLE_WITHOUT_GET: Final = "OW update"
#: The use of the keys by a command, in the words of Redis: whether it reads or writes the entry, and whether the
#: value is looked at, changed, put there or removed. All that only read are RO and `access`, but for those named here.
_ROLES: Final[dict[str, tuple[str, ...]]] = {
    "set": (SET_ROLE,),
    **dict.fromkeys(("setex", "psetex", "mset"), ("OW update",)),
    **dict.fromkeys(("setnx", "msetnx", "msetex"), ("OW insert",)),
    **dict.fromkeys(("getset", "getex", "incr", "decr", "incrby", "decrby", "increx"), ("RW access update",)),
    "getdel": ("RW access delete",),
    "append": ("RW insert",),
    "setrange": ("RW update",),
    **dict.fromkeys(("del", "unlink"), ("RM delete",)),
    **dict.fromkeys(("delex", "delifeq"), ("RW access delete",)),
    **dict.fromkeys(("expire", "pexpire", "expireat", "pexpireat", "persist"), ("RW update",)),
    "rename": ("RW access delete", "OW update"),
    "renamenx": ("RW access delete", "OW insert"),
    **dict.fromkeys(("exists", "touch", "type", "strlen", "watch", "memory|usage", "object|encoding"), ("RO",)),
    **dict.fromkeys(("object|freq", "object|idletime", "object|refcount"), ("RO",)),
}
#: The role of the keys of all other commands.
_READ: Final = ("RO access",)

#: The categories of the groups, and those of commands that Redis counts elsewhere.
_CATEGORIES: Final = {
    "generic": "keyspace",
    "string": "string",
    "connection": "connection",
    "transactions": "transaction",
    "pubsub": "pubsub",
    "scripting": "scripting",
}
_OTHER_CATEGORIES: Final = {
    **dict.fromkeys(("dbsize", "flushall", "flushdb"), "keyspace"),
    **dict.fromkeys(("command", "wait", "waitaof"), "connection"),
}
#: Commands that Redis counts among those of administrators, and the dangerous ones, without the flag `admin`.
_ADMIN: Final = frozenset({"lastsave"})
_DANGEROUS: Final = frozenset({"keys", "flushall", "flushdb", "info", *_ADMIN})


def categories_of(command: Command) -> list[str]:
    """Return the categories of a command, as the access rules of Redis name them."""
    whole = command.name.partition("|")[0]
    found = [name for flag, name in (("write", "write"), ("readonly", "read")) if flag in command.flags]
    own = _OTHER_CATEGORIES.get(whole) or _CATEGORIES.get(command.group)
    has_none = command.subcommands is not None and not command.flags  # the head of parts alone
    if own is not None and not has_none and command.name != "pubsub|help":
        found.append(own)
    found.append("fast" if "fast" in command.flags else "slow")
    if "admin" in command.flags or command.name in _ADMIN:
        found.append("admin")
    if "admin" in command.flags or command.name in _DANGEROUS:
        found.append("dangerous")
    return found


def key_roles(command: Command) -> list[tuple[int, int, str]]:
    """Return the keys of a command by what is done with them: the first, the last behind it, the flags."""
    if not command.first_key:
        return []
    roles = _ROLES.get(command.name, _READ)
    if len(roles) > 1:
        return [(command.first_key + place, 0, role) for place, role in enumerate(roles)]
    last = command.last_key if command.last_key < 0 else command.last_key - command.first_key
    return [(command.first_key, last, roles[0])]


def described(command: Command, version: Version) -> bytes:
    """Return the reply of COMMAND INFO for one command."""
    parts = [described(part, version) for part in (command.subcommands or {}).values()]
    return array(
        [
            text(command.name),
            integer(command.arity),
            set_of([simple(flag) for flag in sorted(command.flags)], version),
            integer(command.first_key),
            integer(command.last_key),
            integer(command.key_step),
            set_of([simple(f"@{name}") for name in categories_of(command)], version),
            EMPTY_ARRAY,  # hints for clients of clusters
            array([_key_specification(command, *role, version) for role in key_roles(command)]),
            array(parts),
        ]
    )


def _key_specification(command: Command, first: int, last: int, role: str, version: Version) -> bytes:
    begin = {"type": text("index"), "spec": _map({"index": integer(first)}, version)}
    spec = {"lastkey": integer(last), "keystep": integer(command.key_step), "limit": integer(0)}
    find = {"type": text("range"), "spec": _map(spec, version)}
    fields = {
        "flags": set_of([simple(flag) for flag in role.split()], version),
        "begin_search": _map(begin, version),
        "find_keys": _map(find, version),
    }
    return _map(fields, version)


def documented(commands: Sequence[Command], version: Version) -> bytes:
    """Return the reply of COMMAND DOCS for some commands."""
    return map_of([(text(command.name), _document(command, version)) for command in commands], version)


def _document(command: Command, version: Version) -> bytes:
    fields = {"summary": text(command.summary), "since": text(command.since), "group": text(command.group)}
    arguments = arguments_of(command.name, version)
    if arguments is not None:
        fields["arguments"] = arguments
    if command.subcommands:
        fields["subcommands"] = documented(list(command.subcommands.values()), version)
    return _map(fields, version)


def _map(fields: dict[str, bytes], version: Version) -> bytes:
    return map_of([(text(name), value) for name, value in fields.items()], version)
