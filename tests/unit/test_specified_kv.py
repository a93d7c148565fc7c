"""Section 7 of the protocol is the `kv` service of a node: its methods, its options, and its examples in bytes."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

import haptera
from haptera.errors import Code, ServerError
from haptera.kv_groups import KV_GROUPS
from haptera.testing import node

ROOT: Final = Path(__file__).parents[2]
SECTION: Final = (
    (ROOT / "spec/protocol.md")
    .read_text(encoding="utf-8")
    .partition("## 7. The `kv` service")[2]
    .partition("### 7.1")[0]
)
ROWS: Final = re.findall(r"^\| (\*\*1\*\*|`kv_\w+`) \| ([\w, ]+) \| (.+?) \| .+ \|$", SECTION, re.MULTILINE)
MANDATORY: Final = {name: argument for group, name, argument in ROWS if group == "**1**"}
RESERVED: Final = [
    (name, argument) for group, names, argument in ROWS if group != "**1**" for name in names.split(", ")
]

GROUP_OF: Final = {name: group.strip("`") for group, names, _ in ROWS for name in names.split(", ")}

#: An argument of each method without its options.
ARGUMENTS: Final[dict[str, list[Any]]] = {
    "get": ["k"],
    "set": ["k", b"1"],
    "delete": ["k"],
    "exists": ["k"],
    "get_many": [["k"]],
    "set_many": [[["k", b"1"]]],
    "delete_many": [["k"]],
    "increment": ["n", 1],
    "rename": ["k", "other"],
    "scan": [],
    "count": [],
    "clear": [],
}


def options(argument: str) -> list[str]:
    """The options that a method's argument in the table has."""
    inside = re.search(r"\{(.*)\}", argument)
    return [] if inside is None else re.findall(r"\w+", re.sub(r": [^,]*| or ", " ", inside[1]))


async def refused(peer: haptera.Peer, method: str, *argument: Any) -> ServerError:
    """The error of a request that must have one."""
    stream = peer.stream("kv", method, msgspec.msgpack.encode(argument))
    with pytest.raises(ServerError) as caught:
        await anext(stream)
    return caught.value


def test_the_table_is_read() -> None:
    assert options(MANDATORY["scan"]) == [
        *("prefix", "start", "end", "glob", "limit", "reverse", "keys_only", "after"),
    ]
    assert options(MANDATORY["set"]) == ["if_version", "if", "return_previous"]
    assert options(MANDATORY["get"]) == options(MANDATORY["set_many"]) == []
    assert {"expire", "transact", "watch", "grant_lease", "set", "set_many"} <= {name for name, _ in RESERVED}


async def test_version_1_and_the_groups_are_the_methods_that_a_node_describes() -> None:
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        described = dict(msgspec.msgpack.decode(await peer.call("session", "describe", b"\x90")))
    assert set(MANDATORY) == set(ARGUMENTS)
    assert set(described["kv"]) == set(MANDATORY) | {
        name for group, names, _ in ROWS if group.strip("`") in KV_GROUPS for name in names.split(", ")
    }


def test_the_capabilities_say_which_groups_software_accepts() -> None:
    assert f"Software accepts {', '.join(f'`{name}`' for name in KV_GROUPS)}." in SECTION


async def test_a_peer_that_asks_for_no_group_has_none_accepted() -> None:
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        await peer.ready()
        assert not peer.capabilities & set(KV_GROUPS)
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        await peer.ready()
        assert peer.capabilities >= set(KV_GROUPS)


@pytest.mark.parametrize("method", MANDATORY)
async def test_version_1_is_the_options_that_a_node_knows(method: str) -> None:
    """An option of a wrong type is refused for its value, and one that is not known for its name."""
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        for option in options(MANDATORY[method]):
            error = await refused(peer, method, *ARGUMENTS[method], {option: [[]]})
            assert error.code == Code.INVALID_ARGUMENT
            assert "unknown" not in error.details, option
        error = await refused(peer, method, *ARGUMENTS[method], {"no_such_option": 1})
        assert error.code == Code.INVALID_ARGUMENT
        if options(MANDATORY[method]) or method == "set_many":
            assert error.details == {"unknown": "no_such_option"}


@pytest.mark.parametrize(("method", "argument"), RESERVED)
async def test_a_group_whose_capability_was_not_accepted_is_refused(method: str, argument: str) -> None:
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        if method not in MANDATORY:
            error = await refused(peer, method)
            assert error.code == Code.UNKNOWN_METHOD
            known = {"service": "kv", "method": method}
            assert error.details in (known, {**known, "capability": GROUP_OF[method]})
            assert ("capability" in error.details) is (GROUP_OF[method] in KV_GROUPS)
            return
        given = options(argument.partition(f"{method}: ")[2].partition(";")[0] or argument)
        assert given
        for option in given:
            error = await refused(peer, method, *ARGUMENTS[method], {option: 1})
            assert error.code == Code.INVALID_ARGUMENT
            assert error.details == {"unknown": option}


@pytest.mark.parametrize(("service", "method"), [("kv", "Get"), ("Kv", "get"), ("kv", " get")])
async def test_names_are_compared_byte_for_byte(service: str, method: str) -> None:
    """Section 2.3: there is one spelling of each."""
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        with pytest.raises(ServerError) as caught:
            await peer.call(service, method, msgspec.msgpack.encode(["k"]))
        assert caught.value.code == (Code.UNKNOWN_METHOD if service == "kv" else Code.UNKNOWN_SERVICE)


LISTED: Final = {
    error["code"]: set(error["details"])
    for error in tomllib.loads((ROOT / "spec/errors.toml").read_text(encoding="utf-8"))["error"]
}
MIB: Final = 1024 * 1024
#: The details of a failure that is of an operation of a transact.
PLACE: Final = ("branch", "operation")

#: A request to a store with the keys `text`, `number` and `large`, its code, and the details of its ERROR: the same
#: however long the argument is, though a long one is answered in turns.
REFUSALS: Final[list[tuple[str, list[Any], int, set[str]]]] = [
    ("no_such_method", [], 3002, {"service", "method"}),
    ("get", [1], 3003, {"reason"}),
    ("exists", ["k", "more"], 3003, {"unknown"}),
    ("set", ["k", b"1", {"if_version": None}], 3003, {"reason"}),
    ("set", ["k", b"1", {"if_version": -1}], 3003, {"field", "reason"}),
    ("scan", [{"glob": "["}], 3003, {"field", "reason"}),
    ("delete_many", [["k"] * 131_073], 3003, {"field", "reason"}),
    ("get_many", [["large"] * 3], 3004, {"limit"}),
    ("get_many", [["large"] * 2000], 3004, {"limit"}),
    ("get", ["missing"], 4001, {"key"}),
    ("set", ["text", b"1", {"if": "absent"}], 4003, {"key"}),
    ("set", ["missing", b"1", {"if": "present"}], 4001, {"key"}),
    ("set", ["text", b"1", {"if_version": 7}], 4002, {"key", "expected", "actual"}),
    ("increment", ["text", 1], 4004, {"key"}),
    ("increment", ["number", 2**63 - 1], 4005, {"key"}),
    ("get", [""], 4006, {"reason"}),
    ("get_many", [["k", ""]], 4006, {"reason", "position"}),
    ("set", ["k", bytes(8 * MIB + 1)], 4007, {"key", "length", "limit"}),
    ("transact", [[], [["get", [1]]]], 3003, {"reason", "branch", "operation"}),
    ("transact", [[], [["clear", []]]], 3003, {"unknown", "branch", "operation"}),
    ("transact", [[], [["get", ["text", {"at_revision": 1}]]]], 3003, {"unknown", *PLACE}),
    ("get", ["text", {"at_revision": 1, "at_time_ms": 1}], 3003, {"field", "reason"}),
    ("get", ["text", {"at_revision": 9}], 4009, {"revision", "oldest", "newest"}),
    ("scan", [{"at_time_ms": 2**53 - 1}], 4009, {"at_time_ms", "oldest", "newest"}),
    ("transact", [[["k", "exists", "<", True]], []], 3003, {"field", "reason", "compare"}),
    ("transact", [[["k", "age", "=", 1]], []], 3003, {"reason"}),
    ("transact", [[["k", "lease", "<", 1]], []], 3003, {"field", "reason", "compare"}),
    ("transact", [[], [["delete", ["k", {"fence": 1}]]]], 3003, {"field", "reason", *PLACE}),
    ("set", ["k", b"1", {"lease": 1, "ttl_ms": 1}], 3003, {"field", "reason"}),
    ("set", ["k", b"1", {"lease": 1, "keep_ttl": True}], 3003, {"field", "reason"}),
    ("set_many", [[["k", b"1"]], {"lease": 1, "ttl_ms": 1}], 3003, {"field", "reason"}),
    ("grant_lease", [999], 3003, {"field", "reason"}),
    ("grant_lease", [86_400_001], 3003, {"field", "reason"}),
    ("renew_lease", [[1] * 10_001], 3003, {"field", "reason"}),
    ("set", ["k", b"1", {"lease": 1}], 4010, {"lease"}),
    ("set_many", [[["k", b"1"]], {"lease": 1}], 4010, {"lease"}),
    ("revoke_lease", [1], 4010, {"lease"}),
    ("transact", [[], [["set", ["k", b"1", {"lease": 1}]]]], 4010, {"lease", *PLACE}),
    ("set", ["text", b"1", {"fence": 1, "if": "absent"}], 4011, {"token"}),
    ("clear", [{"fence": 1}], 4011, {"token"}),
    ("transact", [[], [], [], {"fence": 1}], 4011, {"token"}),
    ("transact", [[], [["get", ["large"]]] * 3], 3004, {"limit"}),
    ("transact", [[], [["rename", ["missing", "k"]]]], 4001, {"key", "branch", "operation"}),
    ("transact", [[], [["set", ["text", b"", {"if_version": 7}]]]], 4002, {"key", "expected", "actual", *PLACE}),
    ("transact", [[], [["set", ["text", b"", {"if": "absent"}]]]], 4003, {"key", *PLACE}),
    ("transact", [[], [["increment", ["text", 1]]]], 4004, {"key", *PLACE}),
    ("transact", [[], [["increment", ["number", 2**63 - 1]]]], 4005, {"key", *PLACE}),
    ("transact", [[], [["get", [""]]]], 4006, {"reason", *PLACE}),
    ("transact", [[["", "exists", "=", True]], []], 4006, {"reason", "compare"}),
    ("transact", [[], [["set", ["k", bytes(8 * MIB + 1)]]]], 4007, {"key", "length", "limit", *PLACE}),
    ("transact", [[], [["exists", ["k"]]] * 129], 4008, {"field", "limit"}),
]


@pytest.mark.parametrize(
    ("method", "argument", "code", "details"),
    REFUSALS,
    ids=[f"{code} of {method}, {number}" for number, (method, _, code, _) in enumerate(REFUSALS)],
)
async def test_a_refusal_has_the_details_that_are_listed(
    method: str, argument: list[Any], code: int, details: set[str]
) -> None:
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        for key, value in (("text", b"not a number"), ("number", b"1"), ("large", bytes(6 * MIB))):
            await peer.call("kv", "set", msgspec.msgpack.encode([key, value]))
        error = await refused(peer, method, *argument)
        assert (error.code, set(error.details)) == (code, details)
    assert details <= LISTED[code]


async def test_the_example_of_a_watch_is_what_a_node_sends() -> None:
    example = SECTION.partition("**watch**")[2].partition("*Example.*")[2].partition("**Reads of the past**")[0]
    mark, event = (
        b"".join(bytes.fromhex(line) for line in re.findall(r"^    (?:   )?((?:[0-9a-f]{2} )+)", part, re.MULTILINE))
        for part in example.replace("    93 02 91", "|    93 02 91").split("|")
    )
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        for key, value in (("a", b"1"), ("b", b"2")):
            await peer.call("kv", "set", msgspec.msgpack.encode([key, value]))
        argument = msgspec.msgpack.encode([{"start_revision": 2}])
        async with peer.stream("kv", "watch", argument) as stream:
            assert [await anext(stream), await anext(stream)] == [mark, event]


async def test_the_example_of_a_lease_and_a_fence_is_what_a_node_takes() -> None:
    example = SECTION.partition("**Fences**")[2].partition("*Example.*")[2].partition("**transact**")[0]
    argument = b"".join(bytes.fromhex(line) for line in re.findall(r"^    ((?:[0-9a-f]{2} )+)", example, re.MULTILINE))
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        for _ in range(7):
            await peer.call("kv", "grant_lease", msgspec.msgpack.encode([5000]))
        for key in ("other", "lock"):
            await peer.call("kv", "set", msgspec.msgpack.encode([key, b"", {"lease": 1}]))
        assert await peer.call("kv", "set", argument) == msgspec.msgpack.encode([10, None])
        assert await peer.call("kv", "revoke_lease", b"\x91\x07") == msgspec.msgpack.encode([1, 11])


async def test_the_example_of_a_scan_is_what_a_node_sends() -> None:
    example = SECTION.partition("*Example.*")[2].partition("**Time to live**")[0]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )+)", example, re.MULTILINE)
    *items, response = (bytes.fromhex(line) for line in lines)
    async with node(storage="memory") as url, haptera.dial(url) as peer:
        for key, value in (("a", b"1"), ("b", b"2")):
            await peer.call("kv", "set", msgspec.msgpack.encode([key, value]))
        stream = peer.stream("kv", "scan", b"\x90")
        assert [item async for item in stream] == [b"".join(items)]
        assert stream.answer is not None
        assert stream.answer.payload == response


async def test_the_example_of_a_transact_is_what_a_node_takes_and_gives() -> None:
    example = SECTION.partition("**transact**")[2].partition("*Example.*")[2].partition("**watch**")[0]
    argument, result = (
        b"".join(bytes.fromhex(line) for line in re.findall(r"^    (?:   )?((?:[0-9a-f]{2} )+)", part, re.MULTILINE))
        for part in example.split("the result")
    )
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        for version in range(1, 9):
            await peer.call("kv", "set", msgspec.msgpack.encode(["a" if version == 7 else "other", b"1"]))
        assert await peer.call("kv", "transact", argument) == result
        assert await peer.call("kv", "get", msgspec.msgpack.encode(["a"])) == msgspec.msgpack.encode([b"2", 9, None])


@pytest.mark.parametrize("size", [100, 100_000])
async def test_a_change_whose_answer_might_not_fit_names_the_limit(size: int) -> None:
    """Whatever way the argument takes through the node."""
    limits = haptera.Limits(max_message=64 * 1024)
    async with node(storage="memory") as url, haptera.dial(url, limits=limits) as peer:
        error = await refused(peer, "set", "k", bytes(size), {"return_previous": True})
        assert (error.code, error.details) == (3004, {"limit": 64 * 1024})


@pytest.mark.parametrize("operation", [["get", ["a"]], ["set", ["a", b"", {"return_previous": True}]]])
async def test_a_transact_whose_answer_might_not_fit_names_the_limit(operation: list[Any]) -> None:
    limits = haptera.Limits(max_message=64 * 1024)
    async with node(storage="memory") as url, haptera.dial(url, limits=limits, groups=KV_GROUPS) as peer:
        for branches in ([[operation], []], [[], [operation]]):
            error = await refused(peer, "transact", [], *branches)
            assert (error.code, error.details) == (3004, {"limit": 64 * 1024})
        assert await peer.call("kv", "transact", msgspec.msgpack.encode([[], [["set", ["a", b"1"]]]]))


@pytest.mark.parametrize("values", [1, 2])
async def test_a_large_answer_to_a_transact_arrives_whole(values: int) -> None:
    """It is encoded in the node's turns."""
    value = bytes(range(256)) * 20_000
    async with node(storage="memory") as url, haptera.dial(url, groups=KV_GROUPS) as peer:
        await peer.call("kv", "set", msgspec.msgpack.encode(["a", value]))
        argument = [[], [["set", ["b", b"1"]], *[["get", ["a"]]] * values, ["get", ["no"]]]]
        answer = await peer.call("kv", "transact", msgspec.msgpack.encode(argument))
        expected = [True, 2, [[2, None], *[[value, 1, None]] * values, None]]
        assert msgspec.msgpack.decode(answer) == expected
