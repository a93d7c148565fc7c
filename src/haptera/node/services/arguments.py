"""The arguments of a node's methods (spec/protocol.md 7): from MessagePack, or from a caller's tuple, to an operation.

An argument is an array whose trailing fields may be left out; options are a map at its end. Nothing that is not known
is ever dropped, because it might be a condition: an unknown field or option, a doubled option, an option that is nil
or of another type, bytes behind the argument, all are 3003 and nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from haptera.errors import Code, Failure, failure
from haptera.state.commands import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Get,
    GetMany,
    Increment,
    Operation,
    Rename,
    Scan,
    Set,
    SetMany,
)

ArgumentT = TypeVar("ArgumentT", bound=Struct)
AskedT = TypeVar("AskedT")

_NO_OPTIONS = Raw()

_BINARY = (bytes,)
"""Said to msgspec.convert, which would else take a text where bytes belong, and decode it as Base64."""


class _Array(Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An argument: an array with one field after the other."""


class _Map(Struct, forbid_unknown_fields=True, gc=False):
    """Options: a map from names."""


class _Key(_Array):
    key: str


class _Keys(_Array):
    keys: list[str]


class _KeyValue(_Array):
    key: str
    value: bytes
    options: Raw = _NO_OPTIONS


class _KeyAndOptions(_Array):
    key: str
    options: Raw = _NO_OPTIONS


class _Items(_Array):
    items: list[tuple[str, bytes]]
    options: Raw = _NO_OPTIONS


class _KeyDelta(_Array):
    key: str
    delta: int
    options: Raw = _NO_OPTIONS


class _TwoKeys(_Array):
    key: str
    new_key: str
    options: Raw = _NO_OPTIONS


class _OptionsAlone(_Array):
    options: Raw = _NO_OPTIONS


class _None(_Map):
    """No option is known."""


class _SetOptions(_Map):
    if_version: int | UnsetType = UNSET
    condition: Literal["absent", "present"] | UnsetType = msgspec.field(default=UNSET, name="if")
    return_previous: bool = False


class _DeleteOptions(_Map):
    if_version: int | UnsetType = UNSET
    return_previous: bool = False


class _IncrementOptions(_Map):
    initial: int = 0


class _RenameOptions(_Map):
    if_absent: bool = False


class _PrefixOptions(_Map):
    prefix: str | UnsetType = UNSET


class _RangeOptions(_PrefixOptions):
    start: str | UnsetType = UNSET
    end: str | UnsetType = UNSET
    glob: str | UnsetType = UNSET


class _ScanOptions(_RangeOptions):
    limit: int | UnsetType = UNSET
    reverse: bool = False
    keys_only: bool = False
    after: str | UnsetType = UNSET


INTERVAL_MS_MIN = 100
"""Often enough for a person who watches; a sample takes a fraction of a millisecond."""

INTERVAL_MS_MAX = 3_600_000
INTERVAL_MS_DEFAULT = 1000


class _WatchOptions(_Map):
    interval_ms: Annotated[int, msgspec.Meta(ge=INTERVAL_MS_MIN, le=INTERVAL_MS_MAX)] = INTERVAL_MS_DEFAULT


class Method(Generic[ArgumentT, AskedT]):
    """How one method's argument becomes what is asked: an operation of the store, for a method of kv.

    `build` makes it of the argument without options; `build_with` of the argument and the decoded options. A method
    that has no options has no `build_with`. ``list_field`` names the list of which the argument may have very many
    elements: it is the argument's first field, and the operation's.
    """

    def __init__(
        self,
        argument: type[ArgumentT],
        build: Callable[[ArgumentT], AskedT],
        options: type[_Map] | None = None,
        build_with: Callable[[ArgumentT, Any], AskedT] | None = None,
    ) -> None:
        self._argument = argument
        self.list_field = next((name for name in argument.__struct_fields__[:1] if name in {"keys", "items"}), None)
        self._decode = msgspec.msgpack.Decoder(argument).decode
        self._build = build
        self._options = options
        self._build_with = build_with

    def decode(self, payload: bytes) -> AskedT | Failure:
        """The operation that a request's payload asks for, or 3003."""
        try:
            argument = self._decode(payload)
        except (ValueError, RecursionError) as error:
            return self._malformed(payload, error)
        if self._options is None:
            return self._build(argument)
        raw: Raw = argument.options  # type: ignore[attr-defined]  # each argument class of a method with options has it
        if raw is _NO_OPTIONS or memoryview(raw).nbytes == 0:
            return self._build(argument)
        options = _options(bytes(raw))
        return options if isinstance(options, Failure) else self._with(argument, options)

    def convert(self, argument: Sequence[Any]) -> AskedT | Failure:
        """The operation that an argument means that was never encoded: the same array, as Python's own values."""
        options: Mapping[str, Any] = {}
        if self._options is not None and argument and isinstance(argument[-1], dict):
            options, argument = argument[-1], argument[:-1]
        try:
            converted = msgspec.convert(tuple(argument), self._argument, builtin_types=_BINARY)
        except (ValueError, RecursionError) as error:
            return _invalid(str(error))
        return self._with(converted, options) if options else self._build(converted)

    def _with(self, argument: ArgumentT, options: Mapping[str, Any]) -> AskedT | Failure:
        assert self._options is not None
        assert self._build_with is not None
        known = self._options.__struct_encode_fields__
        for name in options:
            if name not in known:
                return failure(Code.INVALID_ARGUMENT, {"unknown": _shown(name)}, outcome="not_applied")
        try:
            return self._build_with(argument, msgspec.convert(options, self._options, builtin_types=_BINARY))
        except (ValueError, RecursionError) as error:
            return _invalid(str(error))

    def _malformed(self, payload: bytes, error: Exception) -> Failure:
        """What to say of an argument that could not be decoded: the position of the first field that is not known."""
        try:
            fields = _outline.decode(payload)
        except (ValueError, RecursionError):
            return _invalid(str(error))
        known = len(self._argument.__struct_fields__)
        if len(fields) > known:
            return failure(Code.INVALID_ARGUMENT, {"unknown": known}, outcome="not_applied")
        return _invalid(str(error))


OPTION_SIZE_MAX = 64 * 1024
"""Bytes of an option map: the ranges of a scan in keys of the largest size, twice over."""

OPTION_NAME_SHOWN_MAX = 64
"""Characters of an unknown option that are repeated in the error."""

_outline = msgspec.msgpack.Decoder(list[Raw])
_map = msgspec.msgpack.Decoder(dict[str, Any])


def _options(data: bytes) -> dict[str, Any] | Failure:
    """The option map, if no name in it is doubled: decoding alone would keep the last and drop the others silently."""
    if len(data) > OPTION_SIZE_MAX:
        return _invalid("the options are too large")
    try:
        options = _map.decode(data)
    except (ValueError, RecursionError) as error:
        return _invalid(str(error))
    if len(options) != _map_length(data):
        return _invalid("an option is given twice")
    return options


def _map_length(data: bytes) -> int:
    """The number of pairs that a MessagePack map says it has."""
    if data[0] == 0xDE:
        return int.from_bytes(data[1:3], "big")
    if data[0] == 0xDF:
        return int.from_bytes(data[1:5], "big")
    return data[0] & 0x0F


def _shown(name: Any) -> str:
    # "replace" for a lone surrogate, which an embedded caller's name may hold and no answer can.
    return str(name)[:OPTION_NAME_SHOWN_MAX].encode("utf-8", "replace").decode()


def _invalid(reason: str) -> Failure:
    return failure(Code.INVALID_ARGUMENT, {"reason": reason}, outcome="not_applied")


def _given(value: Any) -> Any:
    return None if value is UNSET else value


def _set(argument: _KeyValue, options: _SetOptions) -> Set:
    return Set(
        argument.key,
        argument.value,
        _given(options.if_version),
        _given(options.condition),
        options.return_previous,
    )


def _range(options: _RangeOptions) -> tuple[str | None, str | None, str | None, str | None]:
    return _given(options.prefix), _given(options.start), _given(options.end), _given(options.glob)


def _scan(_: _OptionsAlone, options: _ScanOptions) -> Scan:
    return Scan(*_range(options), _given(options.limit), options.reverse, options.keys_only, _given(options.after))


METHODS: dict[str, Method[Any, Operation]] = {
    "get": Method(_Key, lambda a: Get(a.key)),
    "set": Method(_KeyValue, lambda a: Set(a.key, a.value), _SetOptions, _set),
    "delete": Method(
        _KeyAndOptions,
        lambda a: Delete(a.key),
        _DeleteOptions,
        lambda a, o: Delete(a.key, _given(o.if_version), o.return_previous),
    ),
    "exists": Method(_Key, lambda a: Exists(a.key)),
    "get_many": Method(_Keys, lambda a: GetMany(a.keys)),
    "set_many": Method(_Items, lambda a: SetMany(a.items), _None, lambda a, _: SetMany(a.items)),
    "delete_many": Method(_Keys, lambda a: DeleteMany(a.keys)),
    "increment": Method(
        _KeyDelta,
        lambda a: Increment(a.key, a.delta),
        _IncrementOptions,
        lambda a, o: Increment(a.key, a.delta, o.initial),
    ),
    "rename": Method(
        _TwoKeys,
        lambda a: Rename(a.key, a.new_key),
        _RenameOptions,
        lambda a, o: Rename(a.key, a.new_key, o.if_absent),
    ),
    "scan": Method(_OptionsAlone, lambda _: Scan(), _ScanOptions, _scan),
    "count": Method(_OptionsAlone, lambda _: Count(), _RangeOptions, lambda _, o: Count(*_range(o))),
    "clear": Method(
        _OptionsAlone,
        lambda _: Clear(),
        _PrefixOptions,
        lambda _, o: Clear(_given(o.prefix)),
    ),
}
"""Every method of kv that there is. An argument of a name that is not here is 3002."""

WATCH_METRICS: Method[_OptionsAlone, int] = Method(
    _OptionsAlone, lambda _: INTERVAL_MS_DEFAULT, _WatchOptions, lambda _, o: o.interval_ms
)
"""The argument of `server.watch_metrics`: what is asked is the interval, in milliseconds."""
