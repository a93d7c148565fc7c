"""The arguments of commands as COMMAND DOCS tells them: the redis-cli makes its hints of them.

Each is a map of its name and its type, with the token that stands before it, whether it is optional and may stand
several times, and the arguments that it is made of, or one of which it is. Commands of which nothing is told here take
no arguments, or are told by their names alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import Struct

from haptera.dialects.resp.reply_encoding import array, integer, map_of, set_of, simple, text

if TYPE_CHECKING:
    from haptera.dialects.resp.reply_encoding import Version


class DocumentedArgument(Struct, frozen=True):
    """One argument. ``kind`` is its type in the words of Redis; ``parts`` are those of a ``block`` or a ``oneof``."""

    name: str
    kind: str = "string"
    token: str | None = None
    flags: tuple[str, ...] = ()
    parts: tuple[DocumentedArgument, ...] = ()


def _maybe(argument: DocumentedArgument) -> DocumentedArgument:
    return DocumentedArgument(
        argument.name, argument.kind, argument.token, ("optional", *argument.flags), argument.parts
    )


def _many(argument: DocumentedArgument) -> DocumentedArgument:
    return DocumentedArgument(
        argument.name, argument.kind, argument.token, (*argument.flags, "multiple"), argument.parts
    )


def _word(token: str) -> DocumentedArgument:
    return DocumentedArgument(token.lower(), "pure-token", token)


def _number(name: str, token: str | None = None) -> DocumentedArgument:
    return DocumentedArgument(name, "integer", token)


def _one_of(name: str, *parts: DocumentedArgument, token: str | None = None) -> DocumentedArgument:
    return DocumentedArgument(name, "oneof", token, parts=parts)


def _words(name: str, tokens: str) -> DocumentedArgument:
    return _one_of(name, *map(_word, tokens.split()))


def _types(name: str, tokens: str) -> DocumentedArgument:
    """The types of connections."""
    return _one_of(name, *map(_word, tokens.split()), token="TYPE")  # noqa: S106


_KEY: Final = DocumentedArgument("key", "key")
_VALUE: Final = DocumentedArgument("value")
_PAIRS: Final = _many(DocumentedArgument("key_value", "block", parts=(_KEY, _VALUE)))
_ENDS: Final = (
    _number("seconds", "EX"),
    _number("milliseconds", "PX"),
    DocumentedArgument("unix-time-seconds", "unix-time", "EXAT"),
    DocumentedArgument("unix-time-milliseconds", "unix-time", "PXAT"),
)
_EXISTENCE: Final = _words("condition", "NX XX")
_TIMES: Final = _maybe(_words("condition", "NX XX GT LT"))
_IF_VALUE: Final = (DocumentedArgument("ifeq-value", token="IFEQ"), DocumentedArgument("ifne-value", token="IFNE"))  # noqa: S106
_ASYNC: Final = (_maybe(_words("async", "ASYNC SYNC")),)
_ADDRESS: Final = DocumentedArgument("ip:port")
_PATTERN: Final = DocumentedArgument("pattern", "pattern")

#: The arguments of each command, by its name.
ARGUMENTS: Final[dict[str, tuple[DocumentedArgument, ...]]] = {
    **dict.fromkeys(("get", "getdel", "strlen", "incr", "decr", "type", "persist"), (_KEY,)),
    **dict.fromkeys(("ttl", "pttl", "expiretime", "pexpiretime"), (_KEY,)),
    **dict.fromkeys(("object|encoding", "object|freq", "object|idletime", "object|refcount"), (_KEY,)),
    **dict.fromkeys(("del", "unlink", "exists", "touch", "mget", "watch"), (_many(_KEY),)),
    **dict.fromkeys(("mset", "msetnx"), (_PAIRS,)),
    **dict.fromkeys(("append", "setnx", "getset", "delifeq"), (_KEY, _VALUE)),
    **dict.fromkeys(("getrange", "substr"), (_KEY, _number("start"), _number("end"))),
    **dict.fromkeys(("flushall", "flushdb"), _ASYNC),
    "set": (
        _KEY,
        _VALUE,
        _maybe(_one_of("condition", *_EXISTENCE.parts, *_IF_VALUE)),
        _maybe(_word("GET")),
        _maybe(_one_of("expiration", *_ENDS, _word("KEEPTTL"))),
    ),
    "setex": (_KEY, _number("seconds"), _VALUE),
    "psetex": (_KEY, _number("milliseconds"), _VALUE),
    "setrange": (_KEY, _number("offset"), _VALUE),
    "getex": (_KEY, _maybe(_one_of("expiration", *_ENDS, _word("PERSIST")))),
    "incrby": (_KEY, _number("increment")),
    "decrby": (_KEY, _number("decrement")),
    "delex": (_KEY, _maybe(_one_of("condition", *_IF_VALUE))),
    "msetex": (
        _number("numkeys"),
        _PAIRS,
        _maybe(_EXISTENCE),
        _maybe(_one_of("expiration", *_ENDS, _word("KEEPTTL"))),
    ),
    "increx": (
        _KEY,
        _maybe(_number("increment", "BYINT")),
        _maybe(_number("lower-bound", "LBOUND")),
        _maybe(_number("upper-bound", "UBOUND")),
        _maybe(_word("SATURATE")),
        _maybe(_one_of("expiration", *_ENDS, _word("PERSIST"))),
        _maybe(_word("ENX")),
    ),
    "expire": (_KEY, _number("seconds"), _TIMES),
    "pexpire": (_KEY, _number("milliseconds"), _TIMES),
    "expireat": (_KEY, DocumentedArgument("unix-time-seconds", "unix-time"), _TIMES),
    "pexpireat": (_KEY, DocumentedArgument("unix-time-milliseconds", "unix-time"), _TIMES),
    **dict.fromkeys(("rename", "renamenx"), (_KEY, DocumentedArgument("newkey", "key"))),
    "keys": (_PATTERN,),
    "scan": (
        _number("cursor"),
        _maybe(DocumentedArgument("pattern", "pattern", "MATCH")),
        _maybe(_number("count", "COUNT")),
        _maybe(DocumentedArgument("type", token="TYPE")),  # noqa: S106
    ),
    "memory|usage": (_KEY, _maybe(_number("count", "SAMPLES"))),
    "hello": (
        _maybe(
            DocumentedArgument(
                "arguments",
                "block",
                parts=(
                    _number("protover"),
                    _maybe(
                        DocumentedArgument(
                            "username_password",
                            "block",
                            "AUTH",
                            parts=(DocumentedArgument("username"), DocumentedArgument("password")),
                        )
                    ),
                    _maybe(DocumentedArgument("clientname", token="SETNAME")),  # noqa: S106
                ),
            )
        ),
    ),
    "auth": (_maybe(DocumentedArgument("username")), DocumentedArgument("password")),
    "ping": (_maybe(DocumentedArgument("message")),),
    "echo": (DocumentedArgument("message"),),
    "select": (_number("index"),),
    "wait": (_number("numreplicas"), _number("timeout")),
    "info": (_maybe(_many(DocumentedArgument("section"))),),
    "subscribe": (_many(DocumentedArgument("channel")),),
    "client|kill": (
        _one_of(
            "filter",
            _ADDRESS,
            _many(
                _one_of(
                    "new-format",
                    _maybe(_number("client-id", "ID")),
                    _maybe(_types("normal_master_slave_pubsub", "NORMAL MASTER SLAVE REPLICA PUBSUB")),
                    _maybe(DocumentedArgument("username", token="USER")),  # noqa: S106
                    _maybe(DocumentedArgument("ip:port", token="ADDR")),  # noqa: S106
                    _maybe(DocumentedArgument("yes/no", token="SKIPME")),  # noqa: S106
                    _maybe(_number("maxage", "MAXAGE")),
                )
            ),
        ),
    ),
    "client|list": (
        _maybe(_types("normal_master_replica_pubsub", "NORMAL MASTER REPLICA PUBSUB")),
        _maybe(DocumentedArgument("id", "block", "ID", parts=(_many(_number("client-id")),))),
    ),
    "client|setname": (DocumentedArgument("connection-name"),),
    "client|reply": (_words("on_off_skip", "ON OFF SKIP"),),
    "client|tracking": (
        _words("status", "ON OFF"),
        _maybe(_number("client-id", "REDIRECT")),
        DocumentedArgument("prefix", token="PREFIX", flags=("optional", "multiple", "multiple_token")),  # noqa: S106
        *(_maybe(_word(word)) for word in ("BCAST", "OPTIN", "OPTOUT", "NOLOOP")),
    ),
    "config|get": (_many(DocumentedArgument("parameter", "block", parts=(DocumentedArgument("parameter"),))),),
    "command|list": (
        _maybe(
            _one_of(
                "filterby",
                DocumentedArgument("module-name", token="MODULE"),  # noqa: S106
                DocumentedArgument("category", token="ACLCAT"),  # noqa: S106
                DocumentedArgument("pattern", "pattern", "PATTERN"),
                token="FILTERBY",  # noqa: S106
            )
        ),
    ),
    "slowlog|get": (_maybe(_number("count")),),
}


def arguments_of(name: str, version: Version) -> bytes | None:
    """Return the arguments of a command, as COMMAND DOCS has them; None where nothing is told."""
    arguments = ARGUMENTS.get(name)
    return None if arguments is None else array([_encoded(each, version) for each in arguments])


def _encoded(argument: DocumentedArgument, version: Version) -> bytes:
    fields = {"name": text(argument.name), "type": text(argument.kind)}
    if not argument.parts:
        fields["display_text"] = text(argument.name)
    if argument.kind == "key":
        fields["key_spec_index"] = integer(1 if argument.name == "newkey" else 0)
    if argument.token is not None:
        fields["token"] = text(argument.token)
    if argument.flags:
        fields["flags"] = set_of([simple(flag) for flag in argument.flags], version)
    if argument.parts:
        fields["arguments"] = array([_encoded(part, version) for part in argument.parts])
    return map_of([(text(name), value) for name, value in fields.items()], version)
