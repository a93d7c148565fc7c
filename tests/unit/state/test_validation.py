"""What is refused before it is logged."""

from __future__ import annotations

import msgspec
import pytest

from haptera.key_rules import KEY_SIZE_MAX, KEYS_PER_COMMAND_MAX, VALUE_SIZE_MAX
from haptera.state import Operation, validate
from haptera.state.access_operations import AddUser, RemoveUser, SetDisabled
from haptera.state.operations import (
    Clear,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Forget,
    Get,
    GetMany,
    Increment,
    OpenScan,
    Rename,
    Set,
    SetMany,
)

LONGEST = "é" * (KEY_SIZE_MAX // 2)

BAD_KEYS = {
    "": "empty",
    "a\0b": "holds a NUL",
    "k" * (KEY_SIZE_MAX + 1): "longer than 4096 bytes",
    LONGEST + "x": "longer than 4096 bytes",
    "\U0001f600" * 1025: "longer than 4096 bytes",
    "\ud800": "not UTF-8",
    "a\udfffb": "not UTF-8",
    "\ud800" * 4096: "longer than 4096 bytes",
}


@pytest.mark.parametrize("key", ["a", " ", "\n", "\x7f", "k" * KEY_SIZE_MAX, LONGEST, "\U0010ffff", "\ue000"])
def test_keys_of_1_to_4096_bytes_without_nul_are_keys(key: str) -> None:
    for op in (Get(key), Set(key, b""), Delete(key), Rename(key, key), SetMany([(key, b"")]), GetMany([key])):
        assert validate(op) is None


@pytest.mark.parametrize(("key", "reason"), BAD_KEYS.items(), ids=range(len(BAD_KEYS)))
def test_other_texts_are_4006_and_are_not_repeated(key: str, reason: str) -> None:
    single: list[Operation] = [
        Get(key),
        Exists(key),
        Set(key, b""),
        Delete(key),
        Increment(key),
        Rename(key, "a"),
        Rename("a", key),
    ]
    for op in single:
        failure = validate(op)
        assert failure is not None
        assert (failure.code, failure.outcome, failure.details) == (4006, "not_applied", {"reason": reason})
        msgspec.msgpack.encode(failure)
    for many in (GetMany(["a", key]), DeleteMany(["a", key]), SetMany([("a", b""), (key, b"")])):
        failure = validate(many)
        assert failure is not None
        assert (failure.code, failure.details) == (4006, {"reason": reason, "position": 1})


def test_values_have_8_mib_at_most() -> None:
    largest = bytes(VALUE_SIZE_MAX)
    assert VALUE_SIZE_MAX == 8 * 1024 * 1024
    assert validate(Set("a", largest)) is None
    assert validate(SetMany([("a", largest)])) is None
    for op in (Set("a", largest + b"x"), SetMany([("b", b""), ("a", largest + b"x")])):
        failure = validate(op)
        assert failure is not None
        assert failure.code == 4007
        assert failure.details == {"key": "a", "length": len(largest) + 1, "limit": len(largest)}


def test_a_command_fits_the_log() -> None:
    half = bytes(VALUE_SIZE_MAX)
    assert code(SetMany([("a", half), ("b", half)])) == 3004
    assert code(DeleteMany(["k" * 4096] * 4096)) == 3004


def code(op: Operation) -> int | None:
    failure = validate(op)
    return None if failure is None else failure.code


@pytest.mark.parametrize(
    ("op", "field"),
    [
        (Set("a", b"", -1), "if_version"),
        (Set("a", b"", 2**53), "if_version"),
        (Set("a", b"", None, "maybe"), "if"),  # type: ignore[arg-type]
        (Delete("a", -1), "if_version"),
        (Delete("a", 2**53), "if_version"),
        (Increment("a", 2**63), "delta"),
        (Increment("a", -(2**63) - 1), "delta"),
        (Increment("a", 1, 2**63), "initial"),
        (OpenScan(limit=-1), "limit"),
        (OpenScan(limit=2**53), "limit"),
        (OpenScan(after="\ud800"), "after"),
        (OpenScan(start="k" * 4097), "start"),
        (Count(end="é" * 2049), "end"),
        (Count(prefix="\udc00"), "prefix"),
        (Clear("\udc00"), "prefix"),
        (OpenScan(glob="[a"), "glob"),
        (Count(glob="a\\"), "glob"),
        (Count(glob="?" * 4097), "glob"),
        (GetMany(["a"] * (KEYS_PER_COMMAND_MAX + 1)), "keys"),
        (DeleteMany(["a"] * (KEYS_PER_COMMAND_MAX + 1)), "keys"),
        (SetMany([("a", b"")] * (KEYS_PER_COMMAND_MAX + 1)), "items"),
        (Forget("u", [b"short"]), "request_ids"),
        (Forget("u", [bytes(16)] * (KEYS_PER_COMMAND_MAX + 1)), "request_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_arguments_out_of_range_are_3003_and_named(op: Operation, field: str) -> None:
    failure = validate(op)
    assert failure is not None
    assert (failure.code, failure.outcome, failure.details["field"]) == (3003, "not_applied", field)
    msgspec.msgpack.encode(failure)


@pytest.mark.parametrize(
    "op",
    [
        Set("a", b"", 0, "absent", True),
        Set("a", b"", 2**53 - 1),
        Delete("a", 0),
        Increment("a", 2**63 - 1, -(2**63)),
        Count(),
        Count("", "", "", ""),
        OpenScan(prefix="p", start="k\0", end="é", glob="*", limit=0, after=""),
        OpenScan(limit=2**53 - 1),
        Clear(),
        Clear(""),
        GetMany([]),
        SetMany([]),
        DeleteMany([]),
        Forget("", []),
        Forget("u", [bytes(16)]),
    ],
)
def test_these_are_accepted(op: Operation) -> None:
    assert validate(op) is None


def test_a_change_of_a_user_that_names_a_token_says_so() -> None:
    for op in (RemoveUser("token:ci"), AddUser("token:ci", None, []), SetDisabled("token:ci", True)):
        refused = validate(op)
        assert refused is not None
        assert (refused.code, refused.details["field"]) == (3003, "user")
        assert refused.details["reason"].startswith("a token, which is no user")
    refused = validate(RemoveUser("local"))
    assert refused is not None
    assert refused.details["reason"] == "no name that can be given here"
