"""Values as types of a program: JSON or MessagePack, checked when they are read and before they are written.

msgspec encodes and checks its own Structs, dataclasses, TypedDicts and the plain types. A model of pydantic checks
itself, where a program has that installed: nothing here imports it before the program gives a model.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, get_origin

import msgspec

from haptera.errors import printable

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

#: The forms that a typed value may be stored or sent in.
CodecName = Literal["json", "msgpack"]

CODECS: Final = ("json", "msgpack")

#: Characters of a reason: a model may complain of each of its fields, and quote the value.
REASON_MAX: Final = 200

#: Complaints of a model that one reason names.
COMPLAINTS_MAX: Final = 3

#: Codecs that are kept for the calls of peers: a program has a class for each of its messages.
KEPT_MAX: Final = 256

#: All errors by which msgspec, pydantic and Python say that bytes or an object do not fit. A RecursionError tells of a
#: value nested too deeply, a ValueError or TypeError is that of a check in the program's own class.
_MISFITS: Final = (msgspec.MsgspecError, ValueError, TypeError, OverflowError, RecursionError, NotImplementedError)


class Misfit(Exception):
    """Bytes or an object do not fit a type. The text says why, in at most `REASON_MAX` printable characters."""


class ValueCodec(Generic[T]):
    """Encodes and decodes the values of one type.

    Args:
        of: The type: a Struct of msgspec, a dataclass, a model of pydantic, or a type made of the plain ones.
        codec: ``"json"`` or ``"msgpack"``.

    Raises:
        TypeError: Values of the type cannot be encoded.
        ValueError: There is no such codec.
    """

    __slots__ = ("_class", "_decode", "_encode", "name")

    def __init__(self, of: type[T], codec: CodecName) -> None:
        if codec not in CODECS:
            raise ValueError(f"codec is 'json' or 'msgpack', not {codec!r}")
        #: The type's name, for messages.
        self.name: str = of.__name__ if isinstance(of, type) and get_origin(of) is None else repr(of)
        self._class = of if _has_fields(of) else None
        self._encode: Callable[[T], bytes]
        self._decode: Callable[[bytes], T]
        if hasattr(of, "__pydantic_core_schema__"):
            self._encode, self._decode = _of_model(of, codec)
            return
        module: Any = msgspec.json if codec == "json" else msgspec.msgpack
        if isinstance(msgspec.inspect.type_info(of), msgspec.inspect.CustomType):
            raise TypeError(f"{self.name} is no Struct, dataclass, model or plain type")
        self._encode, self._decode = module.Encoder().encode, module.Decoder(of).decode

    def encode(self, value: T) -> bytes:
        """Encode a value.

        It is read back before it is given out, because neither Structs nor dataclasses look at their fields when they
        are made: so nothing is stored or sent that its reader would refuse.

        Raises:
            TypeError: It is of another class.
            Misfit: A part of it is of another type, or cannot be encoded.
        """
        if self._class is not None and not isinstance(value, self._class):
            raise TypeError(f"the value is a {self.name}, not {type(value).__name__}")
        try:
            data = self._encode(value)
        except _MISFITS as error:
            raise Misfit(_reason(error)) from None
        self.decode(data)
        return data

    def decode(self, data: bytes) -> T:
        """Decode a value.

        Raises:
            Misfit: The bytes are of another form or another type.
        """
        try:
            return self._decode(data)
        except _MISFITS as error:
            raise Misfit(_reason(error)) from None


def codec_of(of: type[T], codec: CodecName) -> ValueCodec[T]:
    """Return the codec of a type, made once. Raises as `ValueCodec` does."""
    key: Any = of
    return _kept(key, codec)


@lru_cache(maxsize=KEPT_MAX)
def _kept(of: Any, codec: CodecName) -> ValueCodec[Any]:
    return ValueCodec(of, codec)


def _has_fields(of: object) -> bool:
    """Whether it is a class of the program, of which a value must be an instance."""
    return isinstance(of, type) and (
        issubclass(of, msgspec.Struct) or hasattr(of, "__dataclass_fields__") or hasattr(of, "__pydantic_core_schema__")
    )


class _Adapter(Protocol[T]):
    def dump_python(self, value: T, /, *, mode: Literal["json"]) -> object: ...
    def dump_json(self, value: T, /) -> bytes: ...
    def validate_json(self, data: bytes, /) -> T: ...


def _of_model(of: type[T], codec: CodecName) -> tuple[Callable[[T], bytes], Callable[[bytes], T]]:
    """Return the functions that encode and decode a model. In MessagePack it has the fields of its JSON."""
    # Only a program with a model has it, and the type checker of one without it need not find it.
    from pydantic import TypeAdapter  # type: ignore[import-not-found,unused-ignore]  # noqa: PLC0415

    adapter: _Adapter[T] = TypeAdapter(of)
    if codec == "json":
        return adapter.dump_json, adapter.validate_json
    return (
        lambda value: msgspec.msgpack.encode(adapter.dump_python(value, mode="json")),
        lambda data: adapter.validate_json(msgspec.json.encode(msgspec.msgpack.decode(data))),
    )


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    complaints = getattr(error, "errors", None)
    if callable(complaints):  # pydantic's own text quotes the value
        found = complaints(include_url=False, include_context=False)  # all that each pydantic 2 takes
        text = "; ".join(
            f"{each['msg']} - at `${''.join(f'.{part}' for part in each['loc'])}`" for each in found[:COMPLAINTS_MAX]
        )
    else:
        text = str(error)
    text = printable(text[:REASON_MAX])
    return text if len(text) <= REASON_MAX else text[: REASON_MAX - 1] + "…"
