"""The form of the commands in the log.

A logged command is a MessagePack array that names its part and operation first, then its fields in the order of its
class (`haptera.state.operations`); trailing fields may be left out, and then have their defaults::

    entry payload  = [logged, …]
    logged         = [command, user, request_id or nil, digest or nil, resent]
    command        = ["kv.set", key, value, if_version, condition, return_previous, ttl_ms, keep_ttl, lease, fence]
                   | ["kv.transact", [[key, field, operator, operand], …], [command, …], [command, …], fence]
                   | ["leases.grant_lease", ttl_ms]
                   | ["access.add_user", user, verifier or nil, [role, …]]
                   | ["node.set_maintenance", on, reason]
    verifier       = [salt, iterations, stored_key, server_key]

An entry that names an unknown part or operation, or more fields than are known, was written by a newer version of this
software: `UnknownPart`. It is never skipped, because a state that lacks one command is another state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Union

import msgspec
from msgspec import Meta, Struct

from haptera.access_rules import PERMISSIONS
from haptera.errors import HapteraError, NewerFormat, StorageError
from haptera.state.field_kinds import (
    RequestId,
    bound_of_size,
    text_size,
)
from haptera.state.msgpack_arrays import array_header, read_array_header
from haptera.state.operation_sets import OPERATIONS, WRITES, list_fields
from haptera.state.operations import COMPARED, OF_ONE_KEY, AsOf, Compare, Operation, Transact, Write
from haptera.state.sliced_work import Steps, finish


class UnknownPart(NewerFormat):
    """The log, or a snapshot, holds something of a newer format. ``part`` is its own name, such as ``"kv.expire"``."""

    def __init__(self, part: str, reason: str = "is not known", *, kind: str = "command", source: str = "log") -> None:
        StorageError.__init__(self, f"the {kind} {part[:64]!r} {reason}: the {source} was written by a newer version")
        self.part = part
        # It is not told by numbers.
        self.file: str = ""
        self.found: int = 0
        self.supported: int = 0


class MalformedCommands(HapteraError, ValueError):
    """An entry's payload was written by no version."""


if TYPE_CHECKING:
    _AnyWrite = Write
else:
    _AnyWrite = Union[WRITES]  # noqa: UP007  # the decoder is to know every one by its tag


class Logged(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One command as it is logged, with its user and its request id.

    ``digest`` is the SHA-256 of service, method and argument, and stands wherever ``request_id`` (a UUID's 16 bytes)
    does; without a request id the command is simply applied. ``resent`` says that another connection may carry a copy
    of it: then a failure is remembered too.
    """

    op: _AnyWrite
    user: str = ""
    request_id: RequestId | None = None
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None
    resent: bool = False


_FIELD_COUNTS: Final = {str(kind.__struct_config__.tag): len(kind.__struct_fields__) + 1 for kind in WRITES}
_PART_FIELD_COUNTS: Final = {str(kind.__struct_config__.tag): len(kind.__struct_fields__) + 1 for kind in OF_ONE_KEY}
#: The field of each change that may have very many elements.
_LISTS: Final = {kind: name for kind, (name, _) in list_fields(WRITES).items()}
#: Elements that are encoded in one slice.
_PIECE: Final = 1024
_COMPARE_FIELD_COUNT: Final = len(Compare.__struct_fields__)
_LOGGED_FIELD_COUNT: Final = len(Logged.__struct_fields__)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Logged])
_entry_outline: Final = msgspec.msgpack.Decoder(list[list[msgspec.Raw]])
_command_outline: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_commands_outline: Final = msgspec.msgpack.Decoder(list[list[msgspec.Raw]])
_name: Final = msgspec.msgpack.Decoder(str)
_names: Final = msgspec.msgpack.Decoder(list[str])
#: The commands of which permissions are the second field.
_WITH_PERMISSIONS: Final = frozenset({"access.add_grant", "access.remove_grant"})


def encode_commands(commands: Sequence[Logged]) -> bytes:
    """The payload of an entry of the log that holds ``commands``, which `validate` has accepted, in order."""
    return finish(encode_steps(commands))


def encode_steps(commands: Sequence[Logged]) -> Steps[bytes]:
    """As `encode_commands`, in slices: one call of the encoder takes tens of milliseconds for the largest command."""
    if _LISTS.keys().isdisjoint([type(logged.op) for logged in commands]) or not any(map(_is_long, commands)):
        return _encoder.encode(commands)
    pieces: list[bytes | memoryview] = [array_header(len(commands))]
    for logged in commands:
        op = logged.op
        if not _is_long(logged):
            pieces.append(_encoder.encode(logged))
            continue
        elements: Sequence[Any] = getattr(op, _LISTS[type(op)])
        _, *others = msgspec.structs.astuple(op)  # the list is the first field
        tag = op.__struct_config__.tag
        pieces.append(array_header(_LOGGED_FIELD_COUNT) + array_header(2 + len(others)) + _encoder.encode(tag))
        pieces.append(array_header(len(elements)))
        for start in range(0, len(elements), _PIECE):
            encoded = _encoder.encode(elements[start : start + _PIECE])
            header = read_array_header(encoded, 0)
            pieces.append(memoryview(encoded)[header[0] if header else 0 :])
            yield _PIECE
        pieces += [_encoder.encode(field) for field in (*others, *msgspec.structs.astuple(logged)[1:])]
    return b"".join(pieces)


def _is_long(logged: Logged) -> bool:
    field = _LISTS.get(type(logged.op))
    return field is not None and len(getattr(logged.op, field)) > _PIECE


def decode_commands(payload: bytes) -> list[Logged]:
    """The commands of an entry's payload.

    Raises `UnknownPart` for a command, or a field of one, that this version does not know, and `MalformedCommands` (a
    ``ValueError``) for bytes that are no list of commands. Nothing else, for any bytes.
    """
    try:
        return _decoder.decode(payload)
    except (ValueError, RecursionError) as error:
        raise _explanation(payload, error) from error


def _explanation(payload: bytes, error: Exception) -> UnknownPart | MalformedCommands:
    try:
        for logged in _entry_outline.decode(payload):
            fields = _command_outline.decode(logged[0]) if logged else []
            name = _name.decode(fields[0]) if fields else ""
            known = _FIELD_COUNTS.get(name)
            if known is None and "." in name:
                return UnknownPart(name)
            if known is not None and (len(fields) > known or len(logged) > _LOGGED_FIELD_COUNT):
                return UnknownPart(name, "has more fields than are known")
            unknown = None
            if name == Transact.__struct_config__.tag:
                unknown = _unknown_of_transact(fields[1:])
            elif name in _WITH_PERMISSIONS:
                unknown = _unknown_permission(name, fields[2:3])
            if unknown is not None:
                return unknown
    except (ValueError, RecursionError):
        pass  # not even the outline of commands: the first error says it best
    return MalformedCommands(f"not a list of commands: {error}")


def _unknown_of_transact(fields: list[msgspec.Raw]) -> UnknownPart | None:
    """Return what in a transact is of a newer format, if something is: a compare, or an operation."""
    lists = [_commands_outline.decode(field) for field in fields]
    for compare in lists[0] if lists else ():
        _, field, operator = map(_name.decode, compare[:3])
        if len(compare) > _COMPARE_FIELD_COUNT or operator not in COMPARED.get(field, ()):
            return UnknownPart("kv.transact", f"has a compare of {field[:64]!r} that is not known")
    for branch in lists[1:]:
        for command in branch:
            name = _name.decode(command[0]) if command else ""
            known = _PART_FIELD_COUNTS.get(name)
            if known is None or len(command) > known:
                return UnknownPart("kv.transact", f"has an operation {name[:64]!r} that is not known")
    return None


def _unknown_permission(name: str, lists: list[msgspec.Raw]) -> UnknownPart | None:
    """Return the permission of a newer format that a grant has, if it has a list of them and one in it is not known."""
    for permissions in lists:
        for each in _names.decode(permissions):
            if each not in PERMISSIONS:
                return UnknownPart(name, f"has a permission {each[:64]!r} that is not known")
    return None


#: The array's header, the operation's name, numbers and flags: more than any command needs beside keys and values.
COMMAND_OVERHEAD: Final = 64


def size_bound(op: Operation) -> int:
    """An upper bound, in bytes, of ``op`` as it is encoded for the log, cheap enough to ask for every command.

    A `Logged` adds the user's name and at most 64 bytes.
    """
    return _SIZES[type(op)](op)


def _size_of_transact(op: Transact) -> int:
    size = COMMAND_OVERHEAD
    for compare in op.compares:
        operand = compare.operand
        size += COMMAND_OVERHEAD + text_size(compare.key) + (len(operand) if isinstance(operand, bytes) else 0)
    for branch in (op.then, op.otherwise):
        for each in branch:
            size += _SIZES[type(each)](each)
    return size


_SIZES: Final[dict[type[Operation], Callable[[Any], int]]] = {
    **{command: bound_of_size(command, COMMAND_OVERHEAD) for command in OPERATIONS},
    Transact: _size_of_transact,
    AsOf: lambda op: size_bound(op.read),
}
