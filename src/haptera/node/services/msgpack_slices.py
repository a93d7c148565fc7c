"""Large arguments and answers of the kv service, decoded and encoded in slices (`haptera.state.sliced_work`).

One call of the codec takes up to 0.1 s for an argument with the most keys, and nothing else runs meanwhile. So the list
of keys or items is cut where its elements end, and each piece is decoded by itself; the rest of the argument is decoded
as a small one is, with an empty list in place of the long one. Answers are put together from pieces in the same way.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any, Final

import msgspec

from haptera.errors import Code, Failure, failure
from haptera.key_rules import KEYS_PER_COMMAND_MAX
from haptera.state import ANSWER_OVERHEAD, ENTRY_OVERHEAD, array_header, operations, read_array_header, values_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.node.services.method_arguments import Argument
    from haptera.state import Operation, Steps, StoredEntry

#: Elements of one piece: half a millisecond to find their ends and decode them.
ELEMENTS_MAX: Final = 512

#: Bytes after which a piece ends, so that copying it is no pause either.
PIECE_SIZE: Final = 256 * 1024

#: Elements whose sizes are added up in one slice: half a millisecond.
COUNTED_MAX: Final = 4096

_ELEMENT_WORK: Final = 6
#: A copy into memory that the process has just been given takes a quarter of a microsecond for so many.
_BYTES_PER_UNIT: Final = 512

_encode: Final = msgspec.msgpack.Encoder().encode
_decode_keys: Final = msgspec.msgpack.Decoder(list[str]).decode
_decode_items: Final = msgspec.msgpack.Decoder(list[tuple[str, bytes]]).decode


class _Malformed(ValueError):
    """An element has another type than the list's elements have."""


def decode_steps(method: Argument[Operation], payload: bytes, elements: list[Any]) -> Steps[Operation | Failure]:
    """`Argument.decode` in slices, for a method whose first argument is a list of keys, or of items.

    ``elements`` is filled with its decoded elements, and is the list of the operation: its owner frees it
    (`free_steps`), however this ends.
    """
    try:
        first, fields = _array(payload, 0)
        at, count = _array(payload, first)
    except (_Malformed, IndexError):
        return method.decode(payload)  # no list begins there: refused for its first bytes
    field = method.list_field
    assert field is not None
    if not fields:
        return method.decode(payload)
    if count > KEYS_PER_COMMAND_MAX:
        return _malformed(f"more than {KEYS_PER_COMMAND_MAX}", field)
    end_of, decode = (_item_end, _decode_items) if field == "items" else (_text_end, _decode_keys)
    while len(elements) < count:
        start, wanted = at, min(count - len(elements), ELEMENTS_MAX)
        try:
            found = 0
            while found < wanted and at - start < PIECE_SIZE:
                at = end_of(payload, at)
                found += 1
            if at > len(payload):
                raise _Malformed("the argument ends too early")
            elements += decode(array_header(found) + payload[start:at])
        except (ValueError, IndexError) as error:
            return _malformed(str(error), field)
        yield found * _ELEMENT_WORK + (at - start) // _BYTES_PER_UNIT
    op = method.decode(payload[:first] + b"\x90" + payload[at:])
    if isinstance(op, Failure):
        return op
    return _with_list(op, field, elements)


def convert_steps(
    method: Argument[Operation], argument: Sequence[Any], elements: list[Any]
) -> Steps[Operation | Failure]:
    """`Argument.convert` in slices, for an argument that begins with a long list; ``elements`` as of `decode_steps`."""
    field = method.list_field
    assert field is not None
    given, *rest = argument
    op: Operation | Failure = method.convert(([], *rest))
    for start in range(0, len(given), ELEMENTS_MAX):
        if isinstance(op, Failure):
            return op
        op = method.convert((given[start : start + ELEMENTS_MAX], *rest))
        elements += getattr(op if isinstance(op, Failure) else operations.read_of(op), field, ())
        yield ELEMENTS_MAX
    return op if isinstance(op, Failure) else _with_list(op, field, elements)


def _with_list(op: Operation, field: str, elements: list[Any]) -> Operation:
    """An operation with its list, which was decoded by itself."""
    changes = {"read": _with_list(op.read, field, elements)} if isinstance(op, operations.AsOf) else {field: elements}
    return msgspec.structs.replace(op, **changes)


def encode_steps(result: tuple[Any, ...]) -> Steps[bytes]:
    """A result in MessagePack. Of a get_many it is the list of its entries."""
    if type(result[0]) is list or type(result[0]) is bytes:
        return (yield from _entries_steps(result))
    answer = BytesIO(bytes(values_size(result) + 2 * ANSWER_OVERHEAD + ENTRY_OVERHEAD * len(result[-1])))
    yield from _fields_steps(answer, result)
    answer.truncate()
    return answer.getvalue()


def _fields_steps(answer: BytesIO, fields: tuple[Any, ...]) -> Steps[None]:
    """The fields of a result, and of the results and entries in it. Large values are copied in several slices."""
    if values_size(fields) <= PIECE_SIZE:
        yield len(fields) + answer.write(_encode(fields)) // _BYTES_PER_UNIT
        return
    answer.write(array_header(len(fields)))
    for field in fields:
        if type(field) is tuple:
            yield from _fields_steps(answer, field)
        elif type(field) is bytes:
            yield from _value_steps(answer, field)
        else:
            answer.write(_encode(field))


def _entries_steps(result: tuple[Any, ...]) -> Steps[bytes]:
    """The result of a get or a get_many: an entry, or the list of some.

    The answer is written into its own memory, which is taken at the start and given away at the end. To join pieces
    would copy all of it in one step, and that takes 10 ms for the largest answer.
    """
    (first, *_) = result
    entries: list[StoredEntry | None] = first if type(first) is list else [result]
    size = ANSWER_OVERHEAD
    for start in range(0, len(entries), COUNTED_MAX):
        part = entries[start : start + COUNTED_MAX]
        size += sum(ENTRY_OVERHEAD + len(entry[0]) for entry in part if entry is not None) + len(part)
        yield len(part)
    answer = BytesIO(bytes(size))  # the kernel's zeros, if they are many: nothing is copied or cleared
    if type(first) is list:
        answer.write(b"\x91" + array_header(len(entries)))
    begun = size = 0
    for place, entry in enumerate(entries):
        length = 0 if entry is None else len(entry[0])
        if place > begun and (size + length > PIECE_SIZE or place - begun >= ELEMENTS_MAX):
            yield from _piece_steps(answer, entries[begun:place], size)
            begun, size = place, 0
        size += length
    yield from _piece_steps(answer, entries[begun:], size)
    answer.truncate()
    return answer.getvalue()


def _piece_steps(answer: BytesIO, piece: list[StoredEntry | None], size: int) -> Steps[None]:
    """The elements of a list whose values have ``size`` bytes; in several slices if that is one large value."""
    entry = piece[0] if piece else None
    if size <= PIECE_SIZE or entry is None:
        encoded = _encode(piece)
        answer.write(memoryview(encoded)[_array(encoded, 0)[0] :])
        yield len(piece) + size // _BYTES_PER_UNIT
        return
    value, *others = entry
    answer.write(array_header(len(entry)))
    yield from _value_steps(answer, value)
    answer.writelines(_encode(field) for field in others)


def _value_steps(answer: BytesIO, value: bytes) -> Steps[None]:
    answer.write(_bytes_header(len(value)))
    with memoryview(value) as view:
        for start in range(0, len(value), PIECE_SIZE):
            yield answer.write(view[start : start + PIECE_SIZE]) // _BYTES_PER_UNIT


def _bytes_header(size: int) -> bytes:
    """The shortest header of so many bytes, as the encoder writes it."""
    if size < 1 << 8:
        return bytes((0xC4, size))
    return b"\xc5" + size.to_bytes(2, "big") if size < 1 << 16 else b"\xc6" + size.to_bytes(4, "big")


def _malformed(reason: str, field: str) -> Failure:
    return failure(Code.INVALID_ARGUMENT, {"field": field, "reason": reason}, outcome="not_applied")


def _array(data: bytes, at: int) -> tuple[int, int]:
    """`read_array_header` where there must be one."""
    found = read_array_header(data, at)
    if found is None:
        raise _Malformed("an element is no array")
    return found


def _text_end(data: bytes, at: int) -> int:
    """The place behind a text."""
    byte = data[at]
    if byte & 0xE0 == 0xA0:
        return at + 1 + (byte & 0x1F)
    if byte == 0xD9:
        return at + 2 + data[at + 1]
    if byte in {0xDA, 0xDB}:
        return _behind(data, at, 2 if byte == 0xDA else 4)
    raise _Malformed("a key is no text")


def _item_end(data: bytes, at: int) -> int:
    """The place behind a key and its value."""
    behind, count = (at + 1, 2) if data[at] == 0x92 else _array(data, at)
    if count != 2:
        raise _Malformed("an item is not a key and a value")
    at = _text_end(data, behind)
    byte = data[at]
    if byte == 0xC4:
        return at + 2 + data[at + 1]
    if byte in {0xC5, 0xC6}:
        return _behind(data, at, 2 if byte == 0xC5 else 4)
    raise _Malformed("a value is not bytes")


def _behind(data: bytes, at: int, width: int) -> int:
    """The place behind a value whose length stands in `width` bytes."""
    start = at + 1 + width
    return start + int.from_bytes(data[at + 1 : start], "big")
