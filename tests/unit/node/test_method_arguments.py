"""Arguments of kv: what is taken, and that nothing unknown, doubled or malformed is ever dropped silently."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haptera.errors import Failure
from haptera.kv_groups import KV_GROUPS
from haptera.node.services.kv_methods import METHODS, methods_with
from haptera.state.operations import (
    AsOf,
    Clear,
    Compare,
    Count,
    Delete,
    DeleteMany,
    Exists,
    Expire,
    Get,
    GetAndDelete,
    GetAndExpire,
    GetMany,
    GrantLease,
    Increment,
    ListLeases,
    OpenScan,
    Rename,
    RenewLease,
    RevokeLease,
    Set,
    SetMany,
    TimeToLive,
    Transact,
)
from tests.support.nesting import nested

if TYPE_CHECKING:
    from haptera.state import Operation

encode = msgspec.msgpack.encode

TAKEN: list[tuple[str, list[Any], Operation]] = [
    ("get", ["a"], Get("a")),
    ("set", ["a", b"v"], Set("a", b"v")),
    ("set", ["a", b"v", {}], Set("a", b"v")),
    ("set", ["a", b"v", {"if_version": 7}], Set("a", b"v", if_version=7)),
    ("set", ["a", b"v", {"if_version": 0, "if": "absent"}], Set("a", b"v", 0, "absent")),
    ("set", ["a", b"v", {"if": "present", "return_previous": True}], Set("a", b"v", None, "present", True)),
    ("delete", ["a"], Delete("a")),
    ("delete", ["a", {"if_version": 3, "return_previous": True}], Delete("a", 3, True)),
    ("exists", ["a"], Exists("a")),
    ("get_many", [["a", "b"]], GetMany(["a", "b"])),
    ("set_many", [[["a", b"1"], ["b", b"2"]]], SetMany([("a", b"1"), ("b", b"2")])),
    ("set_many", [[["a", b"1"]], {}], SetMany([("a", b"1")])),
    ("delete_many", [["a"]], DeleteMany(["a"])),
    ("increment", ["a", -3], Increment("a", -3)),
    ("increment", ["a", 1, {"initial": 10}], Increment("a", 1, 10)),
    ("rename", ["a", "b"], Rename("a", "b")),
    ("rename", ["a", "b", {"if_absent": True}], Rename("a", "b", True)),
    ("scan", [], OpenScan()),
    ("scan", [{"prefix": "p/", "start": "a", "end": "z", "glob": "*"}], OpenScan("p/", "a", "z", "*")),
    (
        "scan",
        [{"limit": 5, "reverse": True, "keys_only": True, "after": "k"}],
        OpenScan(limit=5, reverse=True, keys_only=True, after="k"),
    ),
    ("count", [], Count()),
    ("count", [{"prefix": "p", "start": "a", "end": "b", "glob": "p*"}], Count("p", "a", "b", "p*")),
    ("clear", [], Clear()),
    ("clear", [{"prefix": "p"}], Clear("p")),
    ("set", ["a", b"v", {"ttl_ms": 60000}], Set("a", b"v", ttl_ms=60000)),
    ("set", ["a", b"v", {"keep_ttl": True, "if": "present"}], Set("a", b"v", condition="present", keep_ttl=True)),
    ("set_many", [[["a", b"1"]], {"ttl_ms": 5}], SetMany([("a", b"1")], 5)),
    ("expire", ["a", 5], Expire("a", 5)),
    ("expire", ["a", None], Expire("a", None)),
    ("get_and_expire", ["a", {"ttl_ms": 5}], GetAndExpire("a", 5)),
    ("get_and_expire", ["a", {"persist": True}], GetAndExpire("a", persist=True)),
    ("get_and_delete", ["a"], GetAndDelete("a")),
    ("ttl", ["a"], TimeToLive("a")),
    ("set", ["a", b"v", {"lease": 7, "fence": 9}], Set("a", b"v", lease=7, fence=9)),
    ("set_many", [[["a", b"1"]], {"lease": 7, "fence": 9}], SetMany([("a", b"1")], lease=7, fence=9)),
    ("delete", ["a", {"fence": 9}], Delete("a", fence=9)),
    ("delete_many", [["a"], {"fence": 9}], DeleteMany(["a"], 9)),
    ("increment", ["a", 1, {"fence": 9}], Increment("a", 1, fence=9)),
    ("rename", ["a", "b", {"fence": 9}], Rename("a", "b", fence=9)),
    ("get_and_delete", ["a", {"fence": 9}], GetAndDelete("a", 9)),
    ("get_and_expire", ["a", {"persist": True, "fence": 9}], GetAndExpire("a", persist=True, fence=9)),
    ("expire", ["a", None, {"fence": 9}], Expire("a", None, 9)),
    ("clear", [{"fence": 9}], Clear(fence=9)),
    ("grant_lease", [5000], GrantLease(5000)),
    ("renew_lease", [[7, 9]], RenewLease([7, 9])),
    ("revoke_lease", [7], RevokeLease(7)),
    ("leases", [], ListLeases()),
    ("leases", [{"after": 7, "limit": 3}], ListLeases(7, 3)),
    ("transact", [[], [], [], {"fence": 9}], Transact([], [], fence=9)),
    ("transact", [[["a", "lease", "!=", 7]], []], Transact([Compare("a", "lease", "!=", 7)], [])),
    ("transact", [[], []], Transact([], [])),
    (
        "transact",
        [[["a", "version", "=", 3], ["b", "exists", "!=", True]], [["set", ["a", b"v", {"if": "absent"}]]], []],
        Transact(
            [Compare("a", "version", "=", 3), Compare("b", "exists", "!=", True)],
            [Set("a", b"v", condition="absent")],
        ),
    ),
    (
        "transact",
        [[["a", "value", "<", b"v"]], [], [["get", ["a"]], ["increment", ["n", 2, {"initial": 1}]]]],
        Transact([Compare("a", "value", "<", b"v")], [], [Get("a"), Increment("n", 2, 1)]),
    ),
    ("get", ["a", {"at_revision": 3}], AsOf(Get("a"), 3)),
    ("get", ["a", {"at_time_ms": 0}], AsOf(Get("a"), None, 0)),
    ("get", ["a", {}], Get("a")),
    ("get_many", [["a"], {"at_revision": 0}], AsOf(GetMany(["a"]), 0)),
    ("count", [{"prefix": "a", "at_time_ms": 5}], AsOf(Count("a"), None, 5)),
    (
        "scan",
        [{"at_revision": 1, "at_time_ms": 2, "limit": 3}],
        AsOf(OpenScan(limit=3), 1, 2),  # it is refused when it is checked, as a value is
    ),
    (
        "transact",
        [[], [["exists", ["a"]], ["delete", ["a"]], ["rename", ["a", "b"]]]],
        Transact([], [Exists("a"), Delete("a"), Rename("a", "b")]),
    ),
]


@pytest.mark.parametrize(("method", "argument", "op"), TAKEN)
def test_an_argument_is_its_operation(method: str, argument: list[Any], op: Operation) -> None:
    assert METHODS[method].decode(encode(argument)) == op


@pytest.mark.parametrize(("method", "argument", "op"), TAKEN)
def test_an_argument_that_was_never_encoded_is_the_same_operation(
    method: str, argument: list[Any], op: Operation
) -> None:
    assert METHODS[method].convert(tuple(argument)) == op


UNKNOWN: list[tuple[str, list[Any], str | int]] = [
    ("exists", ["a", 1], 1),
    ("exists", ["a", {}], 1),
    ("get", ["a", {}, 1], 2),
    ("get", ["a", {"at": 1}], "at"),
    ("exists", ["a", {"at_revision": 1}], 1),
    ("set", ["a", b"", {}, 1], 3),
    ("set", ["a", b"", {"ttl": 1}], "ttl"),
    ("set", ["a", b"", {"persist": True}], "persist"),
    ("set", ["a", b"", {"if_version": 1, "condition": "absent"}], "condition"),
    ("delete", ["a", {"if": "present"}], "if"),
    ("set_many", [[["a", b""]], {"keep_ttl": True}], "keep_ttl"),
    ("get_and_expire", ["a", {"keep_ttl": True}], "keep_ttl"),
    ("expire", ["a", 5, {"ttl_ms": 1}], "ttl_ms"),
    ("expire", ["a", 5, {}, 1], 3),
    ("get_and_delete", ["a", {"lease": 1}], "lease"),
    ("get_and_delete", ["a", {}, {}], 2),
    ("transact", [[], [], [], {"lease": 1}], "lease"),
    ("ttl", ["a", {}], 1),
    ("increment", ["a", 1, {"by": 1}], "by"),
    ("rename", ["a", "b", {"if": "absent"}], "if"),
    ("scan", [{"offset": 10}], "offset"),
    ("scan", [{}, 1], 1),
    ("count", [{"limit": 1}], "limit"),
    ("clear", [{"glob": "*"}], "glob"),
]


@pytest.mark.parametrize(("method", "argument", "unknown"), UNKNOWN)
def test_an_unknown_field_or_option_is_refused_by_name(method: str, argument: list[Any], unknown: str | int) -> None:
    refused = METHODS[method].decode(encode(argument))
    assert isinstance(refused, Failure)
    assert (refused.code, refused.outcome, refused.details) == (3003, "not_applied", {"unknown": unknown})


OF_GROUPS: list[tuple[str, str, list[Any], str]] = [
    ("kv_ttl", "set", ["a", b"", {"ttl_ms": 1}], "ttl_ms"),
    ("kv_ttl", "set_many", [[["a", b""]], {"ttl_ms": 1}], "ttl_ms"),
    ("kv_history", "get", ["a", {"at_revision": 1}], "at_revision"),
    ("kv_history", "scan", [{"at_time_ms": 1}], "at_time_ms"),
    ("kv_leases", "set", ["a", b"", {"lease": 1}], "lease"),
    ("kv_leases", "set_many", [[["a", b""]], {"fence": 1}], "fence"),
    ("kv_leases", "delete", ["a", {"fence": 1}], "fence"),
    ("kv_leases", "clear", [{"fence": 1}], "fence"),
    ("kv_leases", "transact", [[], [], [], {"fence": 1}], "fence"),
    ("kv_leases", "transact", [[["a", "lease", "=", 1]], []], "lease"),
    ("kv_leases", "transact", [[], [["set", ["a", b"", {"lease": 1}]]]], "lease"),
]


@pytest.mark.parametrize(("group", "method", "argument", "unknown"), OF_GROUPS)
def test_a_connection_without_a_group_knows_none_of_its_options(
    group: str, method: str, argument: list[Any], unknown: str
) -> None:
    methods = methods_with({*KV_GROUPS} - {group})
    for refused in (methods[method].decode(encode(argument)), methods[method].convert(tuple(argument))):
        assert isinstance(refused, Failure)
        assert (refused.code, refused.details["unknown"]) == (3003, unknown)
    assert not isinstance(METHODS[method].decode(encode(argument)), Failure)


@pytest.mark.parametrize(
    ("group", "gone"),
    [
        ("kv_transact", {"transact"}),
        ("kv_watch", {"watch"}),
        ("kv_history", {"history"}),
        ("kv_leases", {"grant_lease", "renew_lease", "revoke_lease", "leases"}),
    ],
)
def test_a_connection_without_a_group_has_none_of_its_methods(group: str, gone: set[str]) -> None:
    assert METHODS.keys() - methods_with({*KV_GROUPS} - {group}).keys() == gone


REFUSED: list[tuple[str, list[Any]]] = [
    ("get", []),
    ("get", [1]),
    ("get", [b"a"]),
    ("get", [None]),
    ("expire", ["a"]),
    ("expire", ["a", "5"]),
    ("set", ["a", b"", {"ttl_ms": None}]),
    ("set", ["a", b"", {"ttl_ms": 1.0}]),
    ("set", ["a", b"", {"keep_ttl": 1}]),
    ("set", ["a"]),
    ("set", ["a", "text"]),
    ("set", ["a", b"", None]),
    ("set", ["a", b"", []]),
    ("set", ["a", b"", {"if_version": None}]),
    ("set", ["a", b"", {"if_version": "1"}]),
    ("set", ["a", b"", {"if_version": True}]),
    ("set", ["a", b"", {"if_version": 1.0}]),
    ("set", ["a", b"", {"if": None}]),
    ("set", ["a", b"", {"if": "missing"}]),
    ("set", ["a", b"", {"return_previous": 1}]),
    ("set", ["a", b"", {"return_previous": None}]),
    ("set", ["a", b"", {1: 2}]),
    ("set_many", [[["a"]]]),
    ("set_many", [[["a", b"", 1]]]),
    ("set_many", [{"a": b""}]),
    ("increment", ["a"]),
    ("increment", ["a", 1.5]),
    ("scan", [{"limit": "1"}]),
    ("scan", [None]),
    ("clear", [{"prefix": None}]),
    ("transact", []),
    ("transact", [[]]),
    ("set", ["a", b"", {"lease": b"x"}]),
    ("set", ["a", b"", {"fence": True}]),
    ("transact", [[], [], [], {}, {}]),
    ("transact", [[], [], [], {"fence": "1"}]),
    ("transact", [[], [], [], {"fence": True}]),
    ("transact", [[], [], [], {"fence": None}]),
    ("transact", [[], [], [], 1]),
    ("transact", [[["a", "version", "="]], []]),
    ("transact", [[["a", "version", "=", 1, 1]], []]),
    ("transact", [[["a", "version", "=", 1.0]], []]),
    ("transact", [[["a", "version", "=", None]], []]),
    ("transact", [[["a", "value", "=", "text"]], []]),
    ("transact", [[["a", "age", "=", 1]], []]),
    ("transact", [[["a", "version", "==", 1]], []]),
    ("transact", [[], [["get"]]]),
    ("transact", [[], [["get", ["a"], {}]]]),
    ("transact", [[], [["get", "a"]]]),
    ("transact", [[], [["get", []]]]),
    ("transact", [[], [["get", [1]]]]),
    ("transact", [[], [["set", ["a", b"", {"if": None}]]]]),
    ("transact", [[], [["get_many", [["a"]]]]]),
    ("transact", [[], [["transact", [[], []]]]]),
    ("transact", [[], [[1, ["a"]]]]),
]


@pytest.mark.parametrize(("method", "argument"), REFUSED)
def test_a_wrong_type_or_a_missing_field_is_refused(method: str, argument: list[Any]) -> None:
    for refused in (METHODS[method].decode(encode(argument)), METHODS[method].convert(tuple(argument))):
        assert isinstance(refused, Failure)
        assert (refused.code, refused.outcome) == (3003, "not_applied")


MAP_OF_TWO = {
    "fixmap": b"\x82",
    "map 16": b"\xde\x00\x02",
    "map 32": b"\xdf\x00\x00\x00\x02",
}


@pytest.mark.parametrize("head", MAP_OF_TWO.values(), ids=MAP_OF_TWO)
def test_a_doubled_option_is_refused_however_the_map_is_encoded(head: bytes) -> None:
    options = head + encode("if_version") + encode(1) + encode("if_version") + encode(2)
    refused = METHODS["set"].decode(b"\x93" + encode("a") + encode(b"") + options)
    assert isinstance(refused, Failure)
    assert (refused.code, refused.details) == (3003, {"reason": "an option is given twice"})
    two = head + encode("if_version") + encode(1) + encode("if") + encode("present")
    assert METHODS["set"].decode(b"\x93" + encode("a") + encode(b"") + two) == Set("a", b"", 1, "present")


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x92",
        encode(["a", b""]) + b"\x00",
        encode({"key": "a"}),
        encode("a"),
        b"\x92\xa1\xff\xc4\x00",
        b"\x92\xa3\xed\xa0\x80\xc4\x00",
        b"\x93\xa1a\xc4\x00" + b"\x81\xa1x" + b"\x91" * 33 + b"\x90",
        b"\x93\xa1a\xc4\x00" + b"\x91" * 100_000 + b"\x90",
        b"\x91" * 100_000,
        b"\xdd\xff\xff\xff\xff",
        b"\x93\xa1a\xc4\x00\xdf\xff\xff\xff\xff",
        b"\x93\xa1a\xc6\xff\xff\xff\xff",
    ],
    ids=lambda payload: payload[:12].hex(),
)
def test_malformed_bytes_are_refused(payload: bytes) -> None:
    """Nesting without end, lengths and counts that nothing is behind, text that is not UTF-8, bytes behind the end."""
    refused = METHODS["set"].decode(payload)
    assert isinstance(refused, Failure)
    assert (refused.code, refused.outcome) == (3003, "not_applied")


def test_trap_preallocating_from_a_count_in_the_payload() -> None:
    """A count of four thousand million keys, with no key behind it, costs neither memory nor time."""
    for method, payload in (("get_many", b"\x91\xdd\xff\xff\xff\xff"), ("set_many", b"\x91\xdd\xff\xff\xff\xff\x92")):
        assert isinstance(METHODS[method].decode(payload), Failure)


def test_what_an_answer_repeats_of_an_unknown_option_is_bounded_and_can_be_encoded() -> None:
    for name in ("x" * 10_000, "\ud800"):
        refused = METHODS["clear"].convert(({name: 1},))
        assert isinstance(refused, Failure)
        assert len(encode(refused)) < 200


@given(method=st.sampled_from(sorted(METHODS)), payload=st.binary(max_size=64))
def test_any_bytes_are_an_operation_or_3003(method: str, payload: bytes) -> None:
    result = METHODS[method].decode(payload)
    assert not isinstance(result, Failure) or result.code == 3003


VALUES = nested(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=5) | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["if", "if_version", "prefix", "limit", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(method=st.sampled_from(sorted(METHODS)), argument=st.lists(VALUES, max_size=4))
def test_encoded_or_not_an_argument_means_the_same(method: str, argument: list[Any]) -> None:
    decoded, converted = METHODS[method].decode(encode(argument)), METHODS[method].convert(argument)
    if isinstance(decoded, Failure) or isinstance(converted, Failure):
        assert isinstance(decoded, Failure)
        assert isinstance(converted, Failure)
        assert decoded.code == converted.code == 3003
    else:
        assert decoded == converted
