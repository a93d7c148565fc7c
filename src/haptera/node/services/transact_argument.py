"""The argument of transact (spec/protocol.md, section 7): its operations are arguments of other methods.

Each operation is ``[method, argument]``, and becomes the operation that a request with this method and argument would
be. A refusal says in its details which one it is of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final

import msgspec
from msgspec import Raw, Struct

from haptera.errors import Code, Failure, failure
from haptera.key_rules import placed
from haptera.node.services.method_arguments import BINARY, NO_OPTIONS, invalid, option_map, shown
from haptera.state import finish, limits, operations, read_array_header, too_many_parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from haptera.node.services.method_arguments import Argument
    from haptera.state import Steps

#: Units of work of an operation that is decoded, and the bytes of a value for one unit.
_OPERATION_WORK: Final = 8
_BYTES_PER_UNIT: Final = 512
#: Bytes of the longest header of an array.
_HEADER_SIZE_MAX: Final = 5


class _Encoded(Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    compares: list[operations.Compare]
    then: list[tuple[str, Raw]]
    otherwise: list[tuple[str, Raw]] = []
    options: Raw = NO_OPTIONS


class _Plain(Struct, array_like=True, forbid_unknown_fields=True, frozen=True):
    compares: list[operations.Compare]
    then: list[tuple[str, list[Any]]]
    otherwise: list[tuple[str, list[Any]]] = []
    options: dict[str, Any] = {}


#: The fields of an argument that are lists, in their order.
_LISTS: Final = ("compares", "then", "otherwise")

_decode: Final = msgspec.msgpack.Decoder(_Encoded).decode
_outline: Final = msgspec.msgpack.Decoder(list[Raw]).decode


class TransactArgument:
    """Reads as `Argument` does. ``methods`` has the argument of each method that may be an operation; compares and
    options of leases are known ``with_leases`` alone.
    """

    list_field: ClassVar[None] = None
    bytes_per_unit: ClassVar[int] = 4
    version_at: ClassVar[int | None] = operations.Transact.version_at
    group: ClassVar[str | None] = operations.Transact.group

    def __init__(self, methods: Mapping[str, Argument[Any]], *, with_leases: bool) -> None:
        self._methods = methods
        self._options = ("fence",) if with_leases else ()
        self._unknown_field = None if with_leases else "lease"

    def decode(self, payload: bytes) -> operations.Transact | Failure:
        """The operation that a request's payload asks for; or 3003, or 4008 for too many parts."""
        return finish(self.decode_steps(payload))

    def decode_steps(self, payload: bytes) -> Steps[operations.Transact | Failure]:
        """As `decode`, in slices."""
        try:
            too_many = _too_many(payload)
            if too_many is not None:
                return too_many
            encoded = _decode(payload)
        except (ValueError, RecursionError) as error:
            return invalid(str(error))
        options = option_map(encoded.options)
        refused = options if isinstance(options, Failure) else self._refusal(encoded.compares, options)
        if refused is not None:
            return refused
        assert isinstance(options, dict)
        branches: dict[str, list[operations.OfOneKey]] = {"then": [], "otherwise": []}
        for branch, found in branches.items():
            for number, (name, raw) in enumerate(getattr(encoded, branch)):
                argument = memoryview(raw)
                method = self._methods.get(name)
                op = _unknown(name) if method is None else method.decode(argument)
                if isinstance(op, Failure):
                    return placed(op, branch=branch, operation=number)
                found.append(op)
                yield _OPERATION_WORK + argument.nbytes // _BYTES_PER_UNIT
        return operations.Transact(encoded.compares, **branches, fence=options.get("fence"))

    def convert(self, argument: Sequence[Any]) -> operations.Transact | Failure:
        """The operation that an argument means that was never encoded: the same array, as Python's own values."""
        try:
            plain = msgspec.convert(tuple(argument), _Plain, builtin_types=BINARY)
        except (ValueError, RecursionError) as error:
            return invalid(str(error))
        refused = self._refusal(plain.compares, plain.options)
        if refused is not None:
            return refused
        branches: dict[str, list[operations.OfOneKey]] = {"then": [], "otherwise": []}
        for branch, found in branches.items():
            for number, (name, given) in enumerate(getattr(plain, branch)):
                method = self._methods.get(name)
                op = _unknown(name) if method is None else method.convert(given)
                if isinstance(op, Failure):
                    return placed(op, branch=branch, operation=number)
                found.append(op)
        return operations.Transact(plain.compares, **branches, fence=plain.options.get("fence"))

    def _refusal(self, compares: Sequence[operations.Compare], options: Mapping[str, Any]) -> Failure | None:
        """Why an argument with these compares and options is refused for them, or None."""
        for number, compare in enumerate(compares):
            if compare.field == self._unknown_field:
                return placed(_unknown(compare.field), compare=number)
        for name, value in options.items():
            if name not in self._options:
                return _unknown(name)
            if type(value) is not int:
                return invalid(f"{name} is an int")
        return None


def _too_many(payload: bytes) -> Failure | None:
    """Why an argument is refused before its parts become objects: a few bytes make one, and a message has millions."""
    for field, raw in zip(_LISTS, _outline(payload), strict=False):
        header = read_array_header(bytes(memoryview(raw)[:_HEADER_SIZE_MAX]), 0)
        if header is not None and header[1] > limits.TRANSACT_PARTS_MAX:
            return too_many_parts(field)
    return None


def _unknown(name: str) -> Failure:
    """The refusal of a method that is not known or of many keys, of a compare's field, or of an option."""
    return failure(Code.INVALID_ARGUMENT, {"unknown": shown(name)}, outcome="not_applied")
