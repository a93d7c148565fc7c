"""The arguments of a node's methods (spec/protocol.md 7): from MessagePack, or from a caller's tuple, to an operation.

An argument is an array whose trailing fields may be left out; options are a map at its end. The form of each method's
argument follows from the class of its operation (`haptera.state.command_encoding.Command`). Everything in an argument
must be known, because it might be a condition: an unknown field or option, a doubled option, an option that is nil or
of another type, and bytes behind the argument all are 3003, and nothing is done.
"""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from functools import reduce
from operator import or_
from types import NoneType
from typing import Any, Final, Generic, TypeVar, cast, get_args

import msgspec
from msgspec import NODEFAULT, UNSET, Raw, Struct, UnsetType, structs

from haptera.errors import Code, Failure, failure
from haptera.kv_groups import KV_GROUPS
from haptera.state import array_header, list_field, operations
from haptera.wire import map_size

AskedT = TypeVar("AskedT", bound=Struct)

#: An option map that is not there.
NO_OPTIONS: Final = Raw()

#: The options with which a read is one of the past, and their values in one of the present.
_PAST: Final = structs.fields(operations.AsOf)[1:]
_PRESENT: Final = [None] * len(_PAST)

#: Said to msgspec.convert, which would else take a text where bytes belong, and decode it as Base64.
BINARY: Final = (bytes,)

#: Bytes of an option map: the ranges of a scan in keys of the largest size, twice over.
OPTION_SIZE_MAX: Final = 64 * 1024

#: Characters of an unknown option that are repeated in the error.
OPTION_NAME_SHOWN_MAX: Final = 64

#: Bytes of a list for one unit of work: the shortest keys take three, and are decoded, looked up and encoded.
_LIST_BYTES_PER_UNIT: Final = 2

_outline: Final = msgspec.msgpack.Decoder(list[Raw])
_map: Final = msgspec.msgpack.Decoder(dict[str, Any])


class Argument(Generic[AskedT]):
    """The argument of one method, which becomes an ``asked``: an operation of the store, for a method of kv. With an
    option that names a moment of the past, an operation that may be of the past becomes an `operations.AsOf` around it.

    The class may say more of its form, as a `Command` does. ``list_field`` names the list of which the argument may
    have very many elements: it is the argument's first field, and the operation's. ``bytes_per_unit`` is how many
    bytes of such an argument are a unit of work; 0 for any other. ``version_at`` and ``group`` are the command's. An
    option of a group that is not among ``groups`` is not known.
    """

    __slots__ = (
        "_array",
        "_asked",
        "_decode",
        "_decode_bare",
        "_header",
        "_known",
        "_options",
        "_own",
        "bytes_per_unit",
        "group",
        "list_field",
        "version_at",
    )

    def __init__(self, asked: type[AskedT], groups: Container[str] = KV_GROUPS) -> None:
        listed = list_field(asked)
        self.list_field: str | None = None if listed is None else listed[0]
        self.bytes_per_unit = 0 if listed is None else _LIST_BYTES_PER_UNIT
        self.version_at: int | None = getattr(asked, "version_at", None)
        self.group: str | None = getattr(asked, "group", None)
        self._asked = asked
        fields = structs.fields(asked)
        count: int = getattr(asked, "positional", None) or sum(field.default is NODEFAULT for field in fields)
        array, options = [(field.name, field.type) for field in fields[:count]], fields[count:]
        self._own = len(options)
        past = _PAST if asked in operations.OF_PAST else ()
        options += past
        self._array = _array_struct(array)
        self._options: type[Struct] | None = None
        if options or getattr(asked, "may_have_options", False):
            self._options = _options_struct(options)
        needs: Mapping[str, str] = {
            **getattr(asked, "option_groups", {}),
            **{field.encode_name: str(operations.AsOf.group) for field in past},
        }
        names = [field.encode_name for field in options]
        self._known = frozenset(name for name in names if name not in needs or needs[name] in groups)
        # Most arguments have no options: their first byte says so, and a tuple is decoded faster than a struct.
        self._header = array_header(count)[0]
        self._decode_bare = msgspec.msgpack.Decoder(tuple.__class_getitem__(tuple(type_ for _, type_ in array))).decode
        with_options = array if self._options is None else [*array, ("options", Raw, NO_OPTIONS)]
        self._decode = msgspec.msgpack.Decoder(_array_struct(with_options)).decode

    def decode(self, payload: bytes | memoryview) -> AskedT | Failure:
        """The operation that a request's payload asks for, or 3003."""
        try:
            if payload and payload[0] == self._header:
                return self._asked(*self._decode_bare(payload))
            fields = structs.astuple(self._decode(payload))
        except (ValueError, RecursionError) as error:
            return self._malformed(payload, error)
        if self._options is None:
            return self._asked(*fields)
        *fields_alone, raw = fields
        options = option_map(raw)
        if isinstance(options, Failure):
            return options
        return self._with(fields_alone, options) if options else self._asked(*fields_alone)

    def convert(self, argument: Sequence[Any]) -> AskedT | Failure:
        """The operation that an argument means that was never encoded: the same array, as Python's own values."""
        options: Mapping[str, Any] = {}
        if self._options is not None and argument and isinstance(argument[-1], dict):
            options, argument = argument[-1], argument[:-1]
        try:
            fields = structs.astuple(msgspec.convert(tuple(argument), self._array, builtin_types=BINARY))
        except (ValueError, RecursionError) as error:
            return invalid(str(error))
        return self._with(fields, options) if options else self._asked(*fields)

    def _with(self, fields: Sequence[Any], options: Mapping[str, Any]) -> AskedT | Failure:
        assert self._options is not None
        for name in options:
            if name not in self._known:
                return failure(Code.INVALID_ARGUMENT, {"unknown": shown(name)}, outcome="not_applied")
        try:
            given = structs.astuple(msgspec.convert(options, self._options, builtin_types=BINARY))
        except (ValueError, RecursionError) as error:
            return invalid(str(error))
        own = [None if value is UNSET else value for value in given]
        past = own[self._own :]
        asked = self._asked(*fields, *own[: self._own])
        if past == _PRESENT[: len(past)]:
            return asked
        return cast("AskedT", operations.AsOf(cast("Any", asked), *past))

    def _malformed(self, payload: bytes | memoryview, error: Exception) -> Failure:
        """The refusal of an argument that could not be decoded: the position of the first field that is not known."""
        try:
            fields = _outline.decode(payload)
        except (ValueError, RecursionError):
            return invalid(str(error))
        known = len(self._array.__struct_fields__) + (self._options is not None)
        if len(fields) > known:
            return failure(Code.INVALID_ARGUMENT, {"unknown": known}, outcome="not_applied")
        return invalid(str(error))


def _array_struct(fields: list[Any]) -> type[Struct]:
    return msgspec.defstruct("_Array", fields, array_like=True, forbid_unknown_fields=True, gc=False)


def _options_struct(fields: Sequence[structs.FieldInfo]) -> type[Struct]:
    """Return the class of a map of options: each is optional and none is nil."""
    options: list[Any] = []
    for field in fields:
        if field.default is None:
            given = (part for part in get_args(field.type) if part is not NoneType)
            option = msgspec.field(default=UNSET, name=field.encode_name)
            options.append((field.name, reduce(or_, given) | UnsetType, option))
        else:
            options.append((field.name, field.type, msgspec.field(default=field.default, name=field.encode_name)))
    return msgspec.defstruct("_Options", options, forbid_unknown_fields=True, gc=False)


def option_map(raw: Raw) -> dict[str, Any] | Failure:
    """The option map, if no name in it is doubled: decoding alone would keep the last and drop the others silently."""
    size = 0 if raw is NO_OPTIONS else memoryview(raw).nbytes
    if size == 0:
        return {}
    if size > OPTION_SIZE_MAX:
        return invalid("the options are too large")
    data = bytes(raw)
    try:
        options = _map.decode(data)
    except (ValueError, RecursionError) as error:
        return invalid(str(error))
    if len(options) != map_size(data):
        return invalid("an option is given twice")
    return options


def shown(name: Any) -> str:
    """A name that is not known, as an error repeats it."""
    # "replace" for a lone surrogate, which an embedded caller's name may hold and no answer can.
    return str(name)[:OPTION_NAME_SHOWN_MAX].encode("utf-8", "replace").decode()


def invalid(reason: str) -> Failure:
    """Return 3003 for an argument that cannot be read."""
    return failure(Code.INVALID_ARGUMENT, {"reason": reason}, outcome="not_applied")
