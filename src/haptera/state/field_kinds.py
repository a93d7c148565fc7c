"""The kinds of fields that commands have: the values that each takes, and their size (spec/protocol.md, section 7).

The annotation of a field names its kind, as in ``key: Key``. The validation of a command, the bound of its size and its
place in a request follow from the kinds of its fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args

from msgspec import Meta, Struct, structs

from haptera.access_rules import (
    EVERY_KEY,
    NODE_PERMISSIONS,
    NODE_SECRET_SIZE,
    PATTERN_SIZE_MAX,
    SALT_SIZE,
    VERIFIER_KEY_SIZE,
    is_name,
    is_new_verifier,
    is_token_name,
    is_user_name,
    why_no_name,
)
from haptera.key_rules import (
    EXPIRY_MAX_MS,
    INT64_MAX,
    INT64_MIN,
    KEY_SIZE_MAX,
    LEASE_TTL_MAX_MS,
    LEASE_TTL_MIN_MS,
    LEASES_RENEWED_MAX,
    TTL_MAX_MS,
    VALUE_SIZE_MAX,
    VERSION_MAX,
    bound_refusal,
    count_refusal,
    invalid,
    is_key,
    key_refusal,
    value_refusal,
    value_too_large,
)
from haptera.state import limits
from haptera.state.glob import MalformedGlob, compile_glob

if TYPE_CHECKING:
    from haptera.errors import Failure

REQUEST_ID_SIZE: Final = 16
#: Bytes of the id under which a store is served (spec/protocol.md, section 4).
SERVER_ID_SIZE: Final = 16
#: The header of a pair and of its two strings.
_ITEM_OVERHEAD: Final = 11
_REQUEST_ID_OVERHEAD: Final = 2
_NUMBER_SIZE: Final = 9


def text_size(text: str | None) -> int:
    """Return an upper bound of the bytes of a text, cheap enough to ask for each command."""
    if text is None:
        return 0
    return len(text) if text.isascii() else 4 * len(text)


def size_of_keys(keys: Iterable[str]) -> int:
    """Return an upper bound of the bytes of some keys in a list."""
    return sum(_ITEM_OVERHEAD + text_size(key) for key in keys)


def size_of_items(items: Iterable[tuple[str, bytes]]) -> int:
    """Return an upper bound of the bytes of some keys and values in a list."""
    return sum(_ITEM_OVERHEAD + text_size(key) + len(value) for key, value in items)


class FieldKind:
    """A kind of field. This one takes each value of the field's type, and is a number or a flag.

    ``accepts`` is an expression that is true of acceptable values, the usual ones at least. ``size`` is one for an
    upper bound of the bytes that a value takes in the log beside `commands.COMMAND_OVERHEAD`. ``{0}`` stands for the
    value. The expressions of a command are compiled into one function, because a call for each field would take twice
    as long.
    """

    accepts: str = "True"
    size: str = "0"

    def refusal(self, name: str, op: Any) -> Failure | None:
        """Return why a command is refused for its field ``name``, or None."""
        return None


class TextKind(FieldKind):
    """Any text."""

    size = "text_size({0})"


class KeyKind(TextKind):
    """A key of the store. One like most, ASCII without a NUL, is accepted and measured without a call."""

    size = "(len({0}) if {0}.isascii() else text_size({0}))"
    accepts: str = f"(({{0}}.isascii() and 0 < len({{0}}) <= {KEY_SIZE_MAX} and '\\0' not in {{0}}) or is_key({{0}}))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return key_refusal(getattr(op, name))


class WatchedKeyKind(KeyKind):
    """The one key that is watched, if it is one."""

    size: str = TextKind.size
    accepts = "({0} is None or is_key({0}))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if getattr(op, name) is None else super().refusal(name, op)


class ValueKind(FieldKind):
    """The value of the command's ``key``."""

    accepts: str = f"len({{0}}) <= {VALUE_SIZE_MAX}"
    size = "len({0})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return value_refusal(op.key, len(getattr(op, name)))


class NumberKind(FieldKind):
    """A whole number from ``low`` to ``high``."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high
        self.accepts: str = f"({{0}} is None or {low} <= {{0}} <= {high})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        number = getattr(op, name)
        if number is None or self._low <= number <= self._high:
            return None
        return invalid(name, f"not between {self._low} and {self._high}")


class ConditionKind(FieldKind):
    """Whether the key must be there."""

    accepts = "({0} is None or {0} in {{'absent', 'present'}})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if getattr(op, name) in {None, "absent", "present"} else invalid("if", "neither absent nor present")


class KeepTtlKind(FieldKind):
    """Whether a key that is written keeps its time to live."""

    accepts = "(not {0} or (op.ttl_ms is None and op.lease is None))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if not getattr(op, name) or (op.ttl_ms is None and op.lease is None):
            return None
        return invalid(name, "given with ttl_ms" if op.lease is None else "given with lease")


class LeaseKind(NumberKind):
    """The lease that a key comes to, if it comes to one: it has no time to live then."""

    def __init__(self) -> None:
        super().__init__(1, VERSION_MAX)
        self.accepts: str = f"({{0}} is None or (op.ttl_ms is None and 1 <= {{0}} <= {VERSION_MAX}))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if getattr(op, name) is not None and op.ttl_ms is not None:
            return invalid(name, "given with ttl_ms")
        return super().refusal(name, op)


class LeasesKind(FieldKind):
    """Ids of leases."""

    accepts: str = f"len({{0}}) <= {LEASES_RENEWED_MAX}"
    size: str = f"len({{0}}) * {_NUMBER_SIZE}"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if len(getattr(op, name)) <= LEASES_RENEWED_MAX:
            return None
        return invalid(name, f"more than {LEASES_RENEWED_MAX}")


class PersistKind(FieldKind):
    """Whether a key is to expire no more; otherwise it gets a time to live."""

    accepts = "({0} is (op.ttl_ms is None))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if getattr(op, name) is (op.ttl_ms is None):
            return None
        return invalid(name, "not one of ttl_ms and persist")


class PastTimeKind(NumberKind):
    """The time that a read of the past is of, unless it is of a revision."""

    def __init__(self) -> None:
        super().__init__(0, VERSION_MAX)
        self.accepts: str = f"({self.accepts} and ({{0}} is None or op.at_revision is None))"

    def refusal(self, name: str, op: Any) -> Failure | None:
        if getattr(op, name) is not None and op.at_revision is not None:
            return invalid(name, "given with at_revision")
        return super().refusal(name, op)


class BoundKind(TextKind):
    """A bound of a range."""

    accepts = "{0} is None"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return bound_refusal(name, getattr(op, name))


class GlobKind(BoundKind):
    """A glob over keys."""

    def refusal(self, name: str, op: Any) -> Failure | None:
        refused, text = super().refusal(name, op), getattr(op, name)
        if refused is None and text is not None:
            try:
                compile_glob(text)
            except MalformedGlob as error:
                return invalid(name, str(error))
        return refused


class BytesKind(FieldKind):
    """Bytes of one size, such as an id or a secret."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.accepts: str = f"len({{0}}) == {size}"
        self.size: str = str(size)

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if len(getattr(op, name)) == self._size else invalid(name, f"not {self._size} bytes")


class RequestIdsKind(FieldKind):
    """Ids of requests whose answers are forgotten."""

    accepts = "False"
    size: str = f"len({{0}}) * {REQUEST_ID_SIZE + _REQUEST_ID_OVERHEAD}"

    def refusal(self, name: str, op: Any) -> Failure | None:
        ids = getattr(op, name)
        if any(len(request_id) != REQUEST_ID_SIZE for request_id in ids):
            return invalid(name, f"a request id is {REQUEST_ID_SIZE} bytes")
        return count_refusal(name, len(ids))


class KeysKind(FieldKind):
    """A list of keys, of any length: it is checked in slices alone (`haptera.state.validation.validate_steps`)."""

    accepts = "False"
    size = "size_of_keys({0})"

    def size_of(self, elements: Sequence[Any]) -> int:
        """Return the bound of the size of some elements."""
        return size_of_keys(elements)

    def keys(self, elements: Sequence[Any]) -> Iterable[str]:
        """Return the keys of some elements."""
        return elements


class ItemsKind(KeysKind):
    """A list of keys, each with its value."""

    size = "size_of_items({0})"

    def size_of(self, elements: Sequence[Any]) -> int:
        return size_of_items(elements)

    def keys(self, elements: Sequence[Any]) -> Iterable[str]:
        return (key for key, _ in elements)

    def value_refusal(self, elements: Sequence[Any]) -> Failure | None:
        """Return why the value of one of some elements is refused, or None."""
        for key, value in elements:
            if len(value) > VALUE_SIZE_MAX:
                return value_too_large(key, len(value))
        return None


class NameKind(TextKind):
    """The name of a user, a role or a token, by its ``rule``: the name of a function of `haptera.access_rules`."""

    def __init__(self, rule: Callable[[str], bool]) -> None:
        self._rule = rule
        self.accepts: str = f"{rule.__name__}({{0}})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        return None if self._rule(given := getattr(op, name)) else invalid(name, why_no_name(given))


class RoleNamesKind(FieldKind):
    """A few names of roles."""

    accepts: str = f"(len({{0}}) <= {limits.ROLES_HELD_MAX} and all(map(is_name, {{0}})))"
    size = "size_of_keys({0})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        roles = getattr(op, name)
        if len(roles) > limits.ROLES_HELD_MAX:
            return invalid(name, f"more than {limits.ROLES_HELD_MAX}")
        return None if all(map(is_name, roles)) else invalid(name, "one of them is no name of a role")


class VerifierKind(FieldKind):
    """The verifier of a password, or None."""

    accepts = "({0} is None or is_new_verifier({0}))"
    size: str = f"({SALT_SIZE} + 2 * {VERIFIER_KEY_SIZE} + 4 * {_ITEM_OVERHEAD})"

    def refusal(self, name: str, op: Any) -> Failure | None:
        verifier = getattr(op, name)
        return None if verifier is None or is_new_verifier(verifier) else invalid(name, "no verifier of a password")


class PatternKind(GlobKind):
    """The glob of a grant."""

    def refusal(self, name: str, op: Any) -> Failure | None:
        text = getattr(op, name)
        if text_size(text) > PATTERN_SIZE_MAX and len(text.encode(errors="replace")) > PATTERN_SIZE_MAX:
            return invalid(name, f"longer than {PATTERN_SIZE_MAX} bytes")
        return super().refusal(name, op) if text else invalid(name, "empty")


class PermissionsKind(FieldKind):
    """The permissions of a grant: each once, and on every key where one is of the node as a whole."""

    accepts = "False"
    size: str = f"len({{0}}) * {_ITEM_OVERHEAD + 16}"

    def refusal(self, name: str, op: Any) -> Failure | None:
        permissions = getattr(op, name)
        if not permissions or len(set(permissions)) < len(permissions):
            return invalid(name, "not one or several, each once")
        if op.pattern != EVERY_KEY and not set(permissions).isdisjoint(NODE_PERMISSIONS):
            return invalid(name, f"{', '.join(NODE_PERMISSIONS)} are granted on {EVERY_KEY} alone")
        return None


Key = Annotated[str, KeyKind()]
Keys = Annotated[list[str], KeysKind()]
Items = Annotated[list[tuple[str, bytes]], ItemsKind()]
WatchedKey = Annotated[str, WatchedKeyKind()]
Value = Annotated[bytes, ValueKind()]
Text = Annotated[str, TextKind()]
Version = Annotated[int, NumberKind(0, VERSION_MAX)]
KeepTtl = Annotated[bool, KeepTtlKind()]
Persist = Annotated[bool, PersistKind()]
Ttl = Annotated[int, NumberKind(1, TTL_MAX_MS)]
LeaseTtl = Annotated[int, NumberKind(LEASE_TTL_MIN_MS, LEASE_TTL_MAX_MS)]
LeaseOfKey = Annotated[int, LeaseKind()]
LeaseIds = Annotated[list[int], LeasesKind()]
Token = Annotated[int, NumberKind(1, VERSION_MAX)]
PastTime = Annotated[int, PastTimeKind()]
StartRevision = Annotated[int, NumberKind(1, VERSION_MAX)]
ProgressInterval = Annotated[int, NumberKind(limits.PROGRESS_MS_MIN, limits.PROGRESS_MS_MAX)]
Integer = Annotated[int, NumberKind(INT64_MIN, INT64_MAX)]
Bound = Annotated[str, BoundKind()]
GlobText = Annotated[str, GlobKind()]
UserName = Annotated[str, NameKind(is_user_name)]
TokenName = Annotated[str, NameKind(is_token_name)]
RoleName = Annotated[str, NameKind(is_name)]
RoleNames = Annotated[list[str], RoleNamesKind()]
GrantPattern = Annotated[str, PatternKind()]
NodeSecret = Annotated[bytes, BytesKind(NODE_SECRET_SIZE)]
ExpiryTime = Annotated[int, NumberKind(1, EXPIRY_MAX_MS)]
Condition = Annotated[Literal["absent", "present"], ConditionKind()]
RequestId = Annotated[bytes, Meta(min_length=REQUEST_ID_SIZE, max_length=REQUEST_ID_SIZE)]
RequestIds = Annotated[list[RequestId], RequestIdsKind()]
ServerId = Annotated[bytes, BytesKind(SERVER_ID_SIZE)]

_PLAIN: Final = FieldKind()


def kinds(command: type[Struct]) -> dict[str, FieldKind]:
    """Return the kind of each field of a command, in order."""
    return {field.name: _kind(field.type) for field in structs.fields(command)}


def list_field(command: type[Struct]) -> tuple[str, KeysKind] | None:
    """Return the field of a command that may have very many elements, and its kind; None if it has none."""
    for name, kind in kinds(command).items():
        if isinstance(kind, KeysKind):
            return name, kind
    return None


def _kind(annotation: Any) -> FieldKind:
    """Return the kind that an annotation names, also where the field may be None."""
    for part in (annotation, *get_args(annotation)):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, FieldKind):
                return mark
    return _PLAIN


def size_if_accepted(command: type[Struct], overhead: int) -> Callable[[Any], int | None]:
    """Return a function that gives what `bound_of_size` does, and None unless the expressions of all fields accept the
    command.
    """
    accepts = " and ".join(_expressions(command, "accepts", FieldKind.accepts)) or "True"
    return _compiled(f"({_size(command, overhead)}) if {accepts} else None")


def bound_of_size(command: type[Struct], overhead: int) -> Callable[[Any], int]:
    """Return a function that gives an upper bound of the bytes of a command, ``overhead`` included."""
    return _compiled(_size(command, overhead))


def _size(command: type[Struct], overhead: int) -> str:
    return " + ".join([str(overhead), *_expressions(command, "size", FieldKind.size)])


def _expressions(command: type[Struct], attribute: str, nothing: str) -> Iterable[str]:
    for name, kind in kinds(command).items():
        expression = getattr(kind, attribute)
        if expression != nothing:
            yield expression.format(f"op.{name}")


def _compiled(expression: str) -> Callable[[Any], Any]:
    # Of the expressions of this module and of the names of fields: nothing comes from outside.
    function: Callable[[Any], Any] = eval(f"lambda op: {expression}", dict(_NAMES))  # noqa: S307
    return function


_NAMES: Final = {
    function.__name__: function
    for function in (
        *(is_key, is_name, is_user_name, is_token_name, is_new_verifier),
        *(text_size, size_of_keys, size_of_items),
    )
}
