"""Each method needs the permissions of spec/protocol.md, section 5.3: in each way in which it can be asked for."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast

import pytest

from haptera.access_rules import KEY_PERMISSIONS, PERMISSIONS, is_name
from haptera.errors import Failure
from haptera.node.commands import STRANGER, Envelope
from haptera.node.listening import NodeServer
from haptera.node.services.admin_methods import ADMIN_METHODS
from haptera.node.services.kv import KvService
from haptera.node.services.kv_methods import METHODS
from haptera.node.services.server import MEASURED, NEEDS, ServerService
from haptera.node.services.session import NodeSessionService
from haptera.node.services.submitters import admit
from haptera.peer import Identity
from haptera.state import OPERATIONS, REFUSALS, Permits, method_of
from haptera.state.access_giving import giving_refusal
from haptera.state.access_operations import (
    AddGrant,
    AddRole,
    AddToken,
    AddUser,
    RemoveGrant,
    RemoveRole,
    RemoveUser,
    SetDisabled,
    SetVerifier,
    StoredVerifier,
    WithdrawRole,
)
from haptera.state.node_operations import SetMaintenance
from haptera.state.operation_sets import FENCED
from haptera.state.operations import OF_ONE_KEY, AsOf, Set, Write
from tests.support.verifiers import VERIFIER
from tests.unit.node.doubles import FakePeer, FakeRequest
from tests.unit.node.nodes import done, opened, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from haptera.node.node import Node
    from haptera.peer import Peer
    from haptera.state import Result

CAPABILITIES: Final = frozenset(
    {"pipelining", "idempotency", "kv_ttl", "kv_transact", "kv_watch", "kv_history", "kv_leases", "server_metrics"}
)
PATTERN: Final = "in/*"
NOW_MS: Final = 1_700_000_000_000
#: The id of no lease, though the store has had this revision, and a token that does not stand.
NO_LEASE: Final = 1
MISSING: Final = 99_999

#: A need: a permission, and on which key: the first or the second of the argument, all keys of its prefix, or some key.
Need = tuple[str, str]


class Case(NamedTuple):
    """A method with an argument of two keys and their prefix, and its needs in the order in which they are judged."""

    method: str
    argument: Callable[[str, str, str], tuple[Any, ...]]
    needs: tuple[Need, ...]
    note: str = ""


def case(method: str, argument: Callable[..., tuple[Any, ...]], *needs: str, note: str = "") -> Case:
    return Case(method, argument, tuple(cast("Need", tuple(need.split())) for need in needs), note)


KV: Final = [
    case("get", lambda a, b, p: (a,), "read a"),
    case("get", lambda a, b, p: (a, {"at_revision": 1}), "read a", note="of the past"),
    case("exists", lambda a, b, p: (a,), "read a"),
    case("ttl", lambda a, b, p: (a,), "read a"),
    case("history", lambda a, b, p: (a,), "read a"),
    case("get_many", lambda a, b, p: ([a, b],), "read a", "read b"),
    case("get_many", lambda a, b, p: ([b, a], {"at_revision": 1}), "read b", "read a", note="of the past"),
    case("get_many", lambda a, b, p: ([],), "read some", note="of no key"),
    case("set", lambda a, b, p: (a, b"1"), "write a"),
    case("set", lambda a, b, p: (a, b"1", {"if": "absent"}), "write a", note="if absent"),
    case("set", lambda a, b, p: (a, b"1", {"ttl_ms": 1000}), "write a", note="ttl"),
    case("set", lambda a, b, p: (a, b"1", {"if_version": 0}), "write a", "read a", note="if_version"),
    case("set", lambda a, b, p: (a, b"1", {"return_previous": True}), "write a", "read a", note="previous"),
    case("set", lambda a, b, p: (a, b"1", {"lease": NO_LEASE}), "write a", "lease a", note="lease"),
    case("set_many", lambda a, b, p: ([[a, b"1"], [b, b"1"]],), "write a", "write b"),
    case("set_many", lambda a, b, p: ([[a, b"1"]], {"lease": NO_LEASE}), "write a", "lease a", note="lease"),
    case("set_many", lambda a, b, p: ([],), "write some", note="of no key"),
    case("delete", lambda a, b, p: (a,), "delete a"),
    case("delete", lambda a, b, p: (a, {"if_version": 0}), "delete a", "read a", note="if_version"),
    case("delete", lambda a, b, p: (a, {"return_previous": True}), "delete a", "read a", note="previous"),
    case("delete_many", lambda a, b, p: ([a, b],), "delete a", "delete b"),
    case("delete_many", lambda a, b, p: ([],), "delete some", note="of no key"),
    case("increment", lambda a, b, p: (a, 1), "read a", "write a"),
    case("rename", lambda a, b, p: (a, b), "read a", "delete a", "write b"),
    case("get_and_delete", lambda a, b, p: (a,), "read a", "delete a"),
    case("get_and_expire", lambda a, b, p: (a, {"persist": True}), "read a", "write a"),
    case("expire", lambda a, b, p: (a, 60_000), "write a"),
    case("expire", lambda a, b, p: (a, None), "write a", note="persist"),
    case("clear", lambda a, b, p: ({"prefix": p},), "delete prefix"),
    case("scan", lambda a, b, p: ({"prefix": p},), "scan some", "read some"),
    case("scan", lambda a, b, p: ({"prefix": p, "at_revision": 1},), "scan some", "read some", note="of the past"),
    case("scan", lambda a, b, p: ({"prefix": p, "keys_only": True},), "scan some", note="keys_only"),
    case("count", lambda a, b, p: ({"prefix": p},), "scan some"),
    case("count", lambda a, b, p: ({"prefix": p, "glob": "*/*"},), "scan some", note="glob"),
    case("watch", lambda a, b, p: ({"prefix": p},), "watch prefix", "read prefix"),
    case("watch", lambda a, b, p: ({"prefix": p, "initial": True},), "watch prefix", "read prefix", note="initial"),
    case("watch", lambda a, b, p: ({"key": a},), "watch a", "read a", note="of a key"),
    case("transact", lambda a, b, p: ([], [["get", [a]]], [["delete", [b]]]), "read a", "delete b"),
    case("transact", lambda a, b, p: ([[a, "exists", "=", True]], []), "read a", note="compare"),
    case("transact", lambda a, b, p: ([[a, "lease", "=", 0]], []), "read a", note="compare of a lease"),
    case("transact", lambda a, b, p: ([], []), "read some", note="of nothing"),
    case("grant_lease", lambda a, b, p: (60_000,), "lease some"),
    case("renew_lease", lambda a, b, p: ([NO_LEASE],), "lease some"),
    case("revoke_lease", lambda a, b, p: (NO_LEASE,), "lease some"),
    case("leases", lambda a, b, p: (), "lease some"),
]


def fenced(row: Case) -> Case:
    """The case with a fence."""

    def argument(a: str, b: str, p: str) -> tuple[Any, ...]:
        given, options = row.argument(a, b, p), {"fence": MISSING}
        if row.method == "transact":
            return (*given, [], options) if len(given) == 2 else (*given, options)
        return (*given[:-1], {**given[-1], **options}) if isinstance(given[-1], dict) else (*given, options)

    return Case(row.method, argument, (*row.needs, ("lease", "some")), f"{row.note} fence".strip())


FENCED_METHODS: Final = {method_of(command)[1] for command in FENCED}
KV_CASES: Final = [*KV, *(fenced(row) for row in KV if row.method in FENCED_METHODS)]
SERVER: Final = {
    "status": None,
    "health": None,
    "metrics": "metrics",
    "watch_metrics": "metrics",
    "backup": "backup",
    "snapshot": "admin",
    "rotate_key": "admin",
    "doctor": "admin",
    "maintenance": "admin",
}
SESSION: Final = {"describe": None, "whoami": None}

#: The row of each method in the specification: the permissions that it names.
SPECIFIED: Final = {
    (service, method): set(re.findall(r"`(\w+)`", needs))
    for service, method, needs in re.findall(
        r"^\| `(\w+)` \| (\w+) \| (.+) \|$",
        (Path(__file__).parents[3] / "spec/protocol.md").read_text(encoding="utf-8").partition("### 5.3")[2],
        re.MULTILINE,
    )
}


def name_of(row: Case) -> str:
    return f"{row.method} {row.note}".strip()


def expected(row: Case, granted: Iterable[str], where: str) -> dict[str, Any] | None:
    """The details of the refusal of a request with keys below ``where``, or None if it is not refused."""
    for permission, on in row.needs:
        if permission in granted and (where == "in/" or on == "some"):
            continue
        key = {"a": f"{where}a", "b": f"{where}b"}.get(on)
        return {"permission": permission} if key is None else {"permission": permission, "key": key}
    return None


class User:
    """A connection of a user, whose role ``app`` has some permissions on ``in/*`` and on the node."""

    def __init__(self, node: Node, name: str = "ann", mechanism: str = "SCRAM-SHA-256") -> None:
        self.node = node
        self.kv = KvService(node.commands, node.metrics, node.watches)
        self.server = ServerService(node)
        self.peer = FakePeer(capabilities=CAPABILITIES)
        self.peer.identity = Identity(name, mechanism)
        admit(cast("Peer", self.peer), node.commands)
        self.granted: set[str] = set()

    async def grant(self, permissions: Iterable[str]) -> None:
        """Have the role these permissions and no others, as an administrator would."""
        wanted = set(permissions)
        for change, names in ((RemoveGrant, self.granted - wanted), (AddGrant, wanted - self.granted)):
            for on in (PATTERN, "*"):
                some = [each for each in PERMISSIONS if each in names and (each in KEY_PERMISSIONS) == (on == PATTERN)]
                if some:
                    assert await done(self.node, change("app", some, on)) == [(True,)]
        self.granted = wanted

    async def ask(self, method: str, *argument: Any, beside: FakeRequest | None = None, **options: Any) -> FakeRequest:
        """Ask for it, and give it time to be answered; a watch that goes on is cancelled."""
        request = self.peer.request(method, *argument, **options)
        service = self.server if request.service == "server" else self.kv
        service.handle([each.request for each in (beside, request) if each is not None])
        for _ in range(2000):
            if request.answered or request.items:
                break
            await turn()
        if not request.answered:
            request.cancel()
            await turn()
        return request

    async def outcome(self, row: Case, where: str, **options: Any) -> dict[str, Any] | None:
        """The details of 2004, or None for any other answer."""
        return denial(await self.ask(row.method, *row.argument(f"{where}a", f"{where}b", where), **options))


def denial(request: FakeRequest) -> dict[str, Any] | None:
    """The details of 2004; None for a request that was admitted, for any answer to it."""
    failure = request.failure
    if failure is None or failure.code != 2004:
        assert failure is None or failure.code in ADMITTED or (failure.code == 3006 and request.items), failure
        return None
    assert failure.outcome == "not_applied"
    return dict(failure.details)


@asynccontextmanager
async def user_of(name: str = "ann", **options: Any) -> AsyncIterator[User]:
    options.setdefault("clock_ms", lambda: NOW_MS)
    options.setdefault(
        "monotonic_ns", lambda: 0
    )  # the time of an entry is in answers, and two nodes have to agree on it
    async with opened(**options) as node:
        await done(
            node,
            AddUser("root", VERIFIER, ["admin"]),
            AddRole("app", []),
            AddUser("ann", VERIFIER, ["app"]),
            AddToken("token:t", VERIFIER, ["app"]),
        )
        await done(node, *(Set(f"{where}{key}", b"1") for where in ("in/", "out/") for key in "abc"))
        yield User(node, name)


#: The failures of requests that were admitted: no key, a version or a condition that is not met, no lease, a fence.
ADMITTED: Final = frozenset({4001, 4002, 4003, 4010, 4011})

#: Each permission alone, all of them, and all but one.
SETS: Final = [
    *({each} for each in PERMISSIONS),
    set(PERMISSIONS),
    *(set(PERMISSIONS) - {each} for each in PERMISSIONS),
    set(),
]


#: All permissions on keys, none, and all but one.
FEW: Final = [set(KEY_PERMISSIONS), set(), *(set(KEY_PERMISSIONS) - {each} for each in KEY_PERMISSIONS)]


def of_place(details: dict[str, Any] | None) -> dict[str, Any] | None:
    """Details without the place in a transact."""
    return details and {
        name: value for name, value in details.items() if name not in {"branch", "operation", "compare"}
    }


def test_each_method_has_a_row() -> None:
    """Trap: a method that was forgotten."""
    server = {
        "kv": set(METHODS),
        "server": {*SERVER},
        "admin": set(ADMIN_METHODS),
        "session": {*SESSION, "authenticate"},
    }
    named = {(service, method) for service, methods in server.items() for method in methods}
    assert named <= set(SPECIFIED)
    assert {row.method for row in KV} == set(METHODS)
    assert {method for service, method in SPECIFIED if service == "kv"} == set(METHODS)
    for method in METHODS:
        assert SPECIFIED["kv", method] >= {need for row in KV if row.method == method for need, _ in row.needs} or (
            method == "transact"
        ), method
        assert SPECIFIED["kv", method] <= {need for row in KV if row.method == method for need, _ in row.needs}, method
    assert {name: next(iter(SPECIFIED["server", name]), None) for name in SERVER if name != "status"} == {
        name: need for name, need in SERVER.items() if name != "status"
    }
    assert {name: need for name, need in SERVER.items() if need} == NEEDS
    of_quotas = {"set_quota", "add_token"}
    assert all(SPECIFIED["admin", method] == {"user_admin", "admin"} for method in of_quotas)
    others = ADMIN_METHODS.keys() - of_quotas
    assert {frozenset(SPECIFIED["admin", method]) for method in others} == {frozenset({"user_admin"})}


async def test_each_service_of_a_node_has_its_methods_in_the_table() -> None:
    async with opened() as node:
        services = NodeServer(node)._services
        hosted = {(service.name, method) for service in services for method in service.methods()}
    assert hosted - set(SPECIFIED) == set()


@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_a_request_is_judged_by_each_permission(row: Case) -> None:
    async with user_of() as user:
        for granted in SETS:
            await user.grant(granted)
            for where in ("in/", "out/"):
                before = user.node.revision
                refused = await user.outcome(row, where)
                assert of_place(refused) == expected(row, granted, where), (granted, where)
                assert refused is None or user.node.revision == before


@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_an_admitted_request_has_the_answer_of_an_unrestricted_one(row: Case) -> None:
    answers = []
    for name in ("ann", ""):
        async with user_of(name) as user:
            await user.grant({permission for permission, _ in row.needs})
            request = await user.ask(row.method, *row.argument("in/a", "in/b", "in/"))
            answers.append((request.payload_answered, request.failure, request.items))
    assert answers[0] == answers[1]


#: The cases whose method may be an operation of a transact, and whose options are known there.
PARTS: Final = [
    row
    for row in KV
    if row.method in {method_of(command)[1] for command in OF_ONE_KEY} and "of the past" not in row.note
]


@pytest.mark.parametrize("branch", ["then", "otherwise"])
@pytest.mark.parametrize("row", PARTS, ids=name_of)
async def test_an_operation_of_a_transact_is_judged_in_both_branches(row: Case, branch: str) -> None:
    async with user_of() as user:
        for granted in SETS:
            await user.grant(granted)
            for where in ("in/", "out/"):
                operation = [row.method, row.argument(f"{where}a", f"{where}b", where)]
                branches = ([operation], []) if branch == "then" else ([], [operation])
                refused = denial(await user.ask("transact", [], *branches))
                wanted = expected(row, granted, where)
                assert refused == (wanted and {**wanted, "branch": branch, "operation": 0}), (granted, where)


@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_each_request_of_a_batch_is_judged_by_itself(row: Case) -> None:
    async with user_of() as user:
        for granted in FEW:
            await user.grant(granted)
            for where in ("in/", "out/"):
                beside = user.peer.request("exists", "in/c")
                refused = await user.outcome(row, where, beside=beside)
                assert of_place(refused) == expected(row, granted, where), (granted, where)
                assert denial(beside) == (None if "read" in granted else {"permission": "read", "key": "in/c"})


@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_a_token_is_judged_as_a_user_is(row: Case) -> None:
    async with user_of("token:t") as user:
        for granted in FEW:
            await user.grant(granted)
            for where in ("in/", "out/"):
                assert of_place(await user.outcome(row, where)) == expected(row, granted, where), (granted, where)


@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_a_permission_that_is_withdrawn_counts_at_once_on_a_live_connection(row: Case) -> None:
    async with user_of() as user:
        for permission in KEY_PERMISSIONS:
            await user.grant(KEY_PERMISSIONS)
            assert await user.outcome(row, "in/") is None
            left = set(KEY_PERMISSIONS) - {permission}
            await user.grant(left)
            assert of_place(await user.outcome(row, "in/")) == expected(row, left, "in/"), permission


LAST: Final = {
    "that is removed": [RemoveUser("ann")],
    "that is disabled": [SetDisabled("ann", True)],
    "that loses its role": [WithdrawRole("ann", "app")],
    "whose role is removed": [RemoveRole("app")],
}


@pytest.mark.parametrize("changes", LAST.values(), ids=LAST)
async def test_a_user_may_do_nothing_any_more(changes: list[Any]) -> None:
    for row in KV:
        async with user_of() as user:
            await user.grant(PERMISSIONS)
            assert await user.outcome(row, "in/") is None
            await done(user.node, *changes)
            assert of_place(await user.outcome(row, "in/")) == expected(row, (), "in/")


@pytest.mark.parametrize(("method", "need"), SERVER.items())
async def test_a_method_of_the_server_needs_a_permission_of_the_node(method: str, need: str | None) -> None:
    async with user_of() as user:
        for granted in SETS:
            if need in granted and method in {"snapshot", "rotate_key"} and len(granted) > 1:
                continue  # each takes a while; one set of permissions is enough to show that it is admitted
            await user.grant(granted)
            wanted = None if need is None or need in granted else {"permission": need}
            request = await user.ask(method, service="server")
            found = request.failure
            assert (dict(found.details) if found is not None and found.code == 2004 else None) == wanted, granted
            if found is None and method == "status":
                assert MEASURED.isdisjoint(request.result) == ("metrics" not in granted)


@pytest.mark.parametrize("method", SESSION)
async def test_a_method_of_the_session_needs_nothing(method: str) -> None:
    async with user_of() as user:
        user.peer.services = {}  # type: ignore[attr-defined]
        request = user.peer.request(method, service="session")
        NodeSessionService(user.node.metrics, user.node.roles_of).handle([request.request])
        assert request.failure is None


async def test_nothing_is_done_for_a_connection_before_its_proof() -> None:
    for row in KV:
        async with user_of() as user:
            await user.grant(PERMISSIONS)
            user.peer.identity = None
            assert of_place(await user.outcome(row, "in/")) == expected(row, (), "in/")
            for method, need in SERVER.items():
                if need is not None:
                    assert denial(await user.ask(method, service="server")) == {"permission": need}
            user.peer.identity = Identity("ann", "PLAIN")
            assert await user.outcome(row, "in/") is None


@pytest.mark.parametrize(("name", "mechanism"), [("", ""), ("local", "local"), ("root", "EXTERNAL")])
async def test_an_anonymous_user_the_local_one_and_an_administrator_may_do_everything(
    name: str, mechanism: str
) -> None:
    for row in KV_CASES:
        async with user_of() as user:
            user.peer.identity = Identity(name, mechanism)
            assert await user.outcome(row, "out/") is None


@pytest.mark.parametrize("name", [None, "", "local", "ghost", "token:ghost", "ann"])
async def test_the_command_interface_changes_no_users_for_one_that_may_not(name: str | None) -> None:
    """Before the log, to which an empty name and that of the local user are those of callers that do everything."""
    async with user_of() as user:
        submitter = STRANGER if name is None else user.node.commands.submitter(name)
        revision = user.node._machine.access.revision
        changes: list[Any] = [
            AddUser("mallory", VERIFIER, ["admin"]),
            SetVerifier("root", VERIFIER),
            SetVerifier("local", VERIFIER),
            SetVerifier("", VERIFIER),
            RemoveUser(submitter.user),
            RemoveRole("app"),
        ]
        results: list[Result] = []
        user.node.commands.submit(submitter, [Envelope(change) for change in changes], results.extend)
        while len(results) < len(changes):
            await turn()
        assert all(isinstance(each, Failure) for each in results)
        assert {cast("Failure", each).code for each in results} <= {2004, 3003}
        assert user.node._machine.access.revision == revision


async def test_the_log_takes_the_name_of_one_without_a_proof_for_no_other() -> None:
    async with user_of() as user:
        refused = giving_refusal(user.node._machine.access, AddRole("new", []), STRANGER.user, NOW_MS)
        assert refused is not None
        assert refused.code == 2004
        assert not is_name(STRANGER.user)


async def test_the_command_interface_lets_a_user_replace_its_own_password_alone() -> None:
    async with user_of() as user:
        other = StoredVerifier(b"t" * 16, 600_000, b"l" * 32, b"l" * 32)
        results: list[Result] = []
        changes = [SetVerifier("ann", other), SetVerifier("root", other)]
        user.node.commands.submit(
            user.node.commands.submitter("ann"), [Envelope(change) for change in changes], results.extend
        )
        while len(results) < len(changes):
            await turn()
        assert results[0] == (True,)
        assert isinstance(results[1], Failure)
        assert (results[1].code, results[1].details) == (2004, {"permission": "user_admin"})


async def test_the_name_of_the_local_user_gives_nothing_to_another_mechanism() -> None:
    async with user_of("local") as user:
        assert denial(await user.ask("get", "in/a")) == {"permission": "read", "key": "in/a"}


async def test_a_command_of_the_node_is_refused_to_each_user() -> None:
    """No method leads to one, and a dialect could submit it."""
    methods = {"kv", "leases"}
    async with user_of() as user:
        await user.grant(PERMISSIONS)
        permits = user.node.commands.submitter("ann").permits()
        assert permits is not None
        for command, judge in REFUSALS.items():
            if command is SetMaintenance:
                assert judge(cast("Any", None), permits) is None, "server.maintenance leads to it, with admin"
            elif isinstance(command, type) and issubclass(command, Write) and command.of_node:
                refused = judge(cast("Any", None), permits)
                assert refused is not None
                assert (refused.code, refused.details) == (2004, {"permission": "admin"})
            elif isinstance(command, type) and method_of(command)[0] == "access":
                refused = judge(cast("Any", None), permits)
                assert refused is None, "of all permissions; what a change gives is judged in the log"
            elif command is not AsOf:
                assert method_of(command)[0] in methods | {"requests"}


def test_the_reads_of_users_and_their_changes_need_a_permission() -> None:
    others = [each for each in PERMISSIONS if each != "user_admin"]
    for permissions, lacks in ((others, True), (PERMISSIONS, False)):
        permits = Permits([("*", permissions)])
        for command in OPERATIONS:
            if method_of(command)[0] == "access" and not (issubclass(command, Write) and command.of_node):
                refused = REFUSALS[command](cast("Any", None), permits)
                if not lacks:
                    assert refused is None
                else:
                    assert refused is not None
                    assert (refused.code, refused.details) == (2004, {"permission": "user_admin"})
