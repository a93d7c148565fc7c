"""The form of the commands in the log."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from haptera.state import Logged, MalformedCommands, UnknownPart, Write, decode_commands, encode_commands
from haptera.state.command_encoding import encode_steps
from haptera.state.operations import (
    Clear,
    Delete,
    DeleteMany,
    EndLeases,
    Expire,
    ExpireDue,
    Forget,
    GetAndDelete,
    GetAndExpire,
    GrantLease,
    Increment,
    LeaveGap,
    Rename,
    RevokeLease,
    Set,
    SetMany,
    Transact,
)

ID = bytes(range(16))
DIGEST = bytes(range(32))


@pytest.mark.parametrize(
    ("op", "logged"),
    [
        (Set("k", b"v"), ["kv.set", "k", b"v", None, None, False, None, False, None, None]),
        (Set("k", b"v", 3, "absent", True, 50), ["kv.set", "k", b"v", 3, "absent", True, 50, False, None, None]),
        (Set("k", b"v", keep_ttl=True), ["kv.set", "k", b"v", None, None, False, None, True, None, None]),
        (Delete("k", 3, True), ["kv.delete", "k", 3, True, None]),
        (SetMany([("a", b"1"), ("b", b"2")]), ["kv.set_many", [["a", b"1"], ["b", b"2"]], None, None, None]),
        (SetMany([("a", b"1")], 50), ["kv.set_many", [["a", b"1"]], 50, None, None]),
        (DeleteMany(["a", "b"]), ["kv.delete_many", ["a", "b"], None]),
        (Increment("k", -1, 5), ["kv.increment", "k", -1, 5, None]),
        (Rename("a", "b", True), ["kv.rename", "a", "b", True, None]),
        (GetAndDelete("k"), ["kv.get_and_delete", "k", None]),
        (GetAndExpire("k", 50), ["kv.get_and_expire", "k", 50, False, None]),
        (GetAndExpire("k", persist=True), ["kv.get_and_expire", "k", None, True, None]),
        (Expire("k", 50), ["kv.expire", "k", 50, None]),
        (Expire("k", None), ["kv.expire", "k", None, None]),
        (ExpireDue(["a", "b"]), ["kv.expire_due", ["a", "b"]]),
        (Clear("p"), ["kv.clear", "p", None]),
        (Set("k", b"v", lease=7, fence=9), ["kv.set", "k", b"v", None, None, False, None, False, 7, 9]),
        (SetMany([("a", b"1")], lease=7, fence=9), ["kv.set_many", [["a", b"1"]], None, 7, 9]),
        (Clear(fence=9), ["kv.clear", None, 9]),
        (GrantLease(5000), ["leases.grant_lease", 5000]),
        (RevokeLease(7), ["leases.revoke_lease", 7]),
        (LeaveGap(ID), ["kv.leave_gap", ID]),
        (EndLeases([7, 9]), ["leases.end_leases", [7, 9]]),
        (Transact([], [], fence=9), ["kv.transact", [], [], [], 9]),
        (Forget("u", [ID]), ["requests.forget", "u", [ID]]),
    ],
)
def test_a_logged_command_names_its_part_and_operation_first(op: Write, logged: list[Any]) -> None:
    payload = encode_commands([Logged(op, "app", ID, DIGEST)])
    assert msgspec.msgpack.decode(payload) == [[logged, "app", ID, DIGEST, False]]
    assert decode_commands(payload) == [Logged(op, "app", ID, DIGEST)]


def test_an_entry_may_hold_no_command() -> None:
    assert decode_commands(encode_commands([])) == []


def test_trailing_fields_may_be_left_out() -> None:
    assert decode_commands(
        msgspec.msgpack.encode([[["kv.clear"]], [["kv.increment", "n"], "u"], [["kv.clear"], "u", ID, DIGEST]])
    ) == [
        Logged(Clear()),
        Logged(Increment("n"), "u"),
        Logged(Clear(), "u", ID, DIGEST),
    ]


def test_that_a_command_was_resent_is_logged() -> None:
    logged = Logged(Clear(), "u", ID, DIGEST, resent=True)
    assert decode_commands(encode_commands([logged])) == [logged]


@pytest.mark.parametrize(
    ("command", "part"),
    [
        (["kv.touch", "k", 10], "kv.touch"),
        (["access.grant"], "access.grant"),
        (["kv.get", "k"], "kv.get"),
        (["kv.set", "k", b"v", None, None, False, 1000, False, 1, 1, 1], "kv.set"),
        (["kv.clear", "p", 1, 1], "kv.clear"),
    ],
)
def test_an_unknown_part_operation_or_field_is_a_newer_format(command: list[Any], part: str) -> None:
    payload = msgspec.msgpack.encode([[["kv.set", "k", b"v"]], [command]])
    with pytest.raises(UnknownPart) as caught:
        decode_commands(payload)
    assert caught.value.part == part


def test_a_field_more_around_a_command_is_a_newer_format() -> None:
    with pytest.raises(UnknownPart):
        decode_commands(msgspec.msgpack.encode([[["kv.clear"], "", None, None, False, 1]]))


def valid_but_for(command: Any) -> bytes:
    return msgspec.msgpack.encode([[command]])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x00",
        b"\xc1",
        b"\x90\x00",
        b"\x91",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x91\x91\x92\xabkv.set_many\xdd\xff\xff\xff\xff",
        b"\x91\x91\x92\xa6kv.set\xa2\xc3\x28",
        b"\x91\x91\x93\xa6kv.set\xa3\xed\xa0\x80\xc4\x00",
        valid_but_for([]),
        valid_but_for([5]),
        valid_but_for(["set", "k", b"v"]),
        valid_but_for(["kv.set", "k"]),
        valid_but_for(["kv.set", "k", "text"]),
        valid_but_for(["kv.set", b"k", b"v"]),
        valid_but_for(["kv.set", "k", b"v", True]),
        valid_but_for(["kv.set", "k", b"v", None, "sometimes"]),
        valid_but_for(["kv.increment", "k", 1.0]),
        valid_but_for(["requests.forget", "u", [b"short"]]),
        msgspec.msgpack.encode([[["kv.clear"], "", b"short"]]),
        msgspec.msgpack.encode([[["kv.clear"], "", ID, b"short"]]),
        msgspec.msgpack.encode({"kv.clear": 1}),
        msgspec.msgpack.encode([[]]),
    ],
)
def test_other_bytes_are_malformed(payload: bytes) -> None:
    with pytest.raises(MalformedCommands) as caught:
        decode_commands(payload)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 1024, 1025, 3000, 70_000])
def test_a_long_command_is_encoded_in_slices_to_the_same_bytes(count: int) -> None:
    keys = [f"k{number}" for number in range(count)]
    commands = [
        Logged(Set("a", b"1")),
        Logged(SetMany([(key, b"v") for key in keys]), "user", ID, bytes(32)),
        Logged(DeleteMany(keys)),
    ]
    steps = encode_steps(commands)
    assert len(list(steps)) == (0 if count <= 1024 else 2 * -(-count // 1024))
    assert encode_commands(commands) == msgspec.msgpack.encode(commands)
    assert decode_commands(encode_commands(commands)) == commands
