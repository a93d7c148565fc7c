"""The commands of the replicated state, and their form in the log.

A logged command is a MessagePack array that names its part and operation first, then its fields in the order of the
classes below; trailing fields may be left out, and then have their defaults::

    entry payload  = [logged, …]
    logged         = [command, user, request_id or nil, digest or nil, resent]
    command        = ["kv.set", key, value, if_version, condition, return_previous]

An entry that names an unknown part or operation, or more fields than are known, was written by a newer version of this
software: `UnknownPart`. It is never skipped, because a state that lacks one command is another state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from haptera.errors import HapteraError, NewerFormat, StorageError
from haptera.state.arrays import array_header, read_array_header
from haptera.state.steps import Steps, finish


class UnknownPart(NewerFormat):
    """An entry holds a command of a newer format. ``part`` is what it calls itself, such as ``"kv.expire"``."""

    def __init__(self, part: str, reason: str = "is not known") -> None:
        StorageError.__init__(self, f"the command {part[:64]!r} {reason}: the log was written by a newer version")
        self.part = part
        self.file, self.found, self.supported = "", 0, 0  # it is not told by numbers


class MalformedCommands(HapteraError, ValueError):
    """An entry's payload is not what any version writes."""


class Command(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """What all commands share. They hold text, bytes, numbers and flat lists, so the collector need not follow them."""


class Get(Command, tag="kv.get", frozen=True):
    key: str


class Exists(Command, tag="kv.exists", frozen=True):
    key: str


class GetMany(Command, tag="kv.get_many", frozen=True):
    keys: list[str]


class Count(Command, tag="kv.count", frozen=True):
    """The keys in a range: ``start`` inclusive, ``end`` exclusive, with the prefix, matching the glob."""

    prefix: str | None = None
    start: str | None = None
    end: str | None = None
    glob: str | None = None


class Scan(Command, tag="kv.scan", frozen=True):
    """The entries in a range, in key order. ``after`` is a key: the scan goes on beyond it, in its direction."""

    prefix: str | None = None
    start: str | None = None
    end: str | None = None
    glob: str | None = None
    limit: int | None = None
    reverse: bool = False
    keys_only: bool = False
    after: str | None = None


class Set(Command, tag="kv.set", frozen=True):
    """``if_version`` is the version the key must have (0: it must be absent); ``condition`` is judged after it."""

    key: str
    value: bytes
    if_version: int | None = None
    condition: Literal["absent", "present"] | None = None
    return_previous: bool = False


class Delete(Command, tag="kv.delete", frozen=True):
    key: str
    if_version: int | None = None
    return_previous: bool = False


class SetMany(Command, tag="kv.set_many", frozen=True):
    """The last of a doubled key wins."""

    items: list[tuple[str, bytes]]


class DeleteMany(Command, tag="kv.delete_many", frozen=True):
    keys: list[str]


class Increment(Command, tag="kv.increment", frozen=True):
    key: str
    delta: int = 1
    initial: int = 0


class Rename(Command, tag="kv.rename", frozen=True):
    key: str
    new_key: str
    if_absent: bool = False


class Clear(Command, tag="kv.clear", frozen=True):
    prefix: str | None = None


class Forget(Command, tag="requests.forget", frozen=True):
    """The user has read these answers and will not ask for them again (``answered_below``)."""

    user: str
    request_ids: list[Annotated[bytes, Meta(min_length=16, max_length=16)]]


Read = Get | Exists | GetMany | Count
Write = Set | Delete | SetMany | DeleteMany | Increment | Rename | Clear | Forget
Operation = Read | Scan | Write


class Logged(Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """One command as it is logged: who asked, and under which request id.

    ``digest`` is the SHA-256 of service, method and argument, and stands wherever ``request_id`` (a UUID's 16 bytes)
    does; without a request id the command is simply applied. ``resent`` says that another connection may carry a copy
    of it: then a failure is remembered too.
    """

    op: Write
    user: str = ""
    request_id: Annotated[bytes, Meta(min_length=16, max_length=16)] | None = None
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)] | None = None
    resent: bool = False


_WRITES: Final = (Set, Delete, SetMany, DeleteMany, Increment, Rename, Clear, Forget)
_FIELD_COUNTS: Final = {str(kind.__struct_config__.tag): len(kind.__struct_fields__) + 1 for kind in _WRITES}
#: Elements that are encoded in one slice.
_PIECE: Final = 1024
_LOGGED_FIELD_COUNT: Final = len(Logged.__struct_fields__)

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Logged])
_entry_outline: Final = msgspec.msgpack.Decoder(list[list[msgspec.Raw]])
_command_outline: Final = msgspec.msgpack.Decoder(list[msgspec.Raw])
_name: Final = msgspec.msgpack.Decoder(str)


def encode_commands(commands: Sequence[Logged]) -> bytes:
    """The payload of an entry of the log that holds ``commands``, which `validate` has accepted, in order."""
    return finish(encode_steps(commands))


def encode_steps(commands: Sequence[Logged]) -> Steps[bytes]:
    """As `encode_commands`, in slices: one call of the encoder takes tens of milliseconds for the largest command."""
    if not any(map(_is_long, commands)):
        return _encoder.encode(commands)
    pieces: list[bytes | memoryview] = [array_header(len(commands))]
    for logged in commands:
        op = logged.op
        if not _is_long(logged):
            pieces.append(_encoder.encode(logged))
            continue
        elements: Sequence[Any] = op.items if isinstance(op, SetMany) else op.keys  # type: ignore[union-attr]
        pieces.append(array_header(_LOGGED_FIELD_COUNT) + array_header(2) + _encoder.encode(op.__struct_config__.tag))
        pieces.append(array_header(len(elements)))
        for start in range(0, len(elements), _PIECE):
            encoded = _encoder.encode(elements[start : start + _PIECE])
            header = read_array_header(encoded, 0)
            pieces.append(memoryview(encoded)[header[0] if header else 0 :])
            yield _PIECE
        pieces += [_encoder.encode(field) for field in msgspec.structs.astuple(logged)[1:]]
    return b"".join(pieces)


def _is_long(logged: Logged) -> bool:
    op = logged.op
    kind = type(op)
    return (kind is SetMany and len(op.items) > _PIECE) or (  # type: ignore[union-attr]
        kind is DeleteMany and len(op.keys) > _PIECE  # type: ignore[union-attr]
    )


def decode_commands(payload: bytes) -> list[Logged]:
    """The commands of an entry's payload.

    Raises `UnknownPart` for a command, or a field of one, that this version does not know, and `MalformedCommands` (a
    ``ValueError``) for bytes that are no list of commands. Nothing else, whatever the bytes.
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
    except (ValueError, RecursionError):
        pass  # not even the outline of commands: the first error says it best
    return MalformedCommands(f"not a list of commands: {error}")


def size_bound(op: Operation) -> int:
    """An upper bound, in bytes, of ``op`` as it is encoded for the log, cheap enough to ask for every command.

    What a `Logged` adds is the user's name and at most 64 bytes.
    """
    return _SIZES[type(op)](op)


#: The array's header, the operation's name, numbers and flags: more than any command needs beside keys and values.
COMMAND_OVERHEAD: Final = 64
#: The header of a pair and of its two strings.
_ITEM_OVERHEAD: Final = 11


def _text(text: str | None) -> int:
    if text is None:
        return 0
    return len(text) if text.isascii() else 4 * len(text)


def _size_of_set(op: Set) -> int:
    return COMMAND_OVERHEAD + _text(op.key) + len(op.value)


def size_of_items(items: Iterable[tuple[str, bytes]]) -> int:
    """The part of `size_bound` that is these items of a SetMany."""
    return sum(_ITEM_OVERHEAD + _text(key) + len(value) for key, value in items)


def size_of_keys(keys: Iterable[str]) -> int:
    """The part of `size_bound` that is these keys of a GetMany or DeleteMany."""
    return sum(_ITEM_OVERHEAD + _text(key) for key in keys)


def _size_of_set_many(op: SetMany) -> int:
    return COMMAND_OVERHEAD + size_of_items(op.items)


def _size_of_many(op: GetMany | DeleteMany) -> int:
    return COMMAND_OVERHEAD + size_of_keys(op.keys)


def _size_of_key(op: Get | Exists | Delete | Increment) -> int:
    return COMMAND_OVERHEAD + _text(op.key)


def _size_of_rename(op: Rename) -> int:
    return COMMAND_OVERHEAD + _text(op.key) + _text(op.new_key)


def _size_of_range(op: Count | Scan) -> int:
    bounds = _text(op.prefix) + _text(op.start) + _text(op.end) + _text(op.glob)
    return COMMAND_OVERHEAD + bounds + (_text(op.after) if type(op) is Scan else 0)


def _size_of_clear(op: Clear) -> int:
    return COMMAND_OVERHEAD + _text(op.prefix)


def _size_of_forget(op: Forget) -> int:
    return COMMAND_OVERHEAD + _text(op.user) + 18 * len(op.request_ids)


_SIZES: Final[dict[type, Callable[..., int]]] = {
    Get: _size_of_key,
    Exists: _size_of_key,
    GetMany: _size_of_many,
    Count: _size_of_range,
    Scan: _size_of_range,
    Set: _size_of_set,
    Delete: _size_of_key,
    SetMany: _size_of_set_many,
    DeleteMany: _size_of_many,
    Increment: _size_of_key,
    Rename: _size_of_rename,
    Clear: _size_of_clear,
    Forget: _size_of_forget,
}
