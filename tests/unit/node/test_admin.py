"""The admin service (protocol, section 7.3): users, roles, grants and tokens over a connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import Code, Failure, failure
from haptera.node.commands import Submitter
from haptera.node.services import admin
from haptera.node.services.admin_methods import ADMIN_METHODS, target_of
from haptera.node.services.private_links import is_private
from haptera.node.services.recorded_requests import RecordedRequests
from haptera.node.services.session import NodeSessionService
from haptera.peer import Identity
from haptera.state.access_operations import AddUser, SetVerifier, StoredVerifier
from haptera.state.operations import Set
from haptera.testing import MemoryFileSystem
from tests.unit.node.audit.logs import lines, paths
from tests.unit.node.doubles import TAG_REPLAYED, FakePeer, FakeRequest
from tests.unit.node.nodes import Asked, ManualWriter, done, opened, turn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.access_rules import NodePermission
    from haptera.node.node import Node

KEY = b"a key that nothing may ever show"
VERIFIER: list[Any] = [b"s" * 16, 600_000, KEY, KEY]
ID, OTHER_ID = b"i" * 16, b"o" * 16
CHANGES: dict[str, list[Any]] = {
    "add_user": ["ann", VERIFIER, []],
    "remove_user": ["ann"],
    "set_verifier": ["ann", VERIFIER],
    "set_disabled": ["ann", True],
    "assign_role": ["ann", "app"],
    "withdraw_role": ["ann", "app"],
    "add_role": ["app", []],
    "remove_role": ["app"],
    "add_parent": ["app", "web"],
    "remove_parent": ["app", "web"],
    "add_grant": ["app", ["read"], "a/*"],
    "remove_grant": ["app", ["read"], "a/*"],
    "add_token": ["token:1", VERIFIER, []],
    "remove_token": ["token:1"],
    "set_quota": ["ann", {"keys": 10, "bytes": 1000, "claim": "a/"}],
}
READS: dict[str, list[Any]] = {
    "users": [],
    "user": ["ann"],
    "quota": ["ann"],
    "roles": [],
    "role": ["admin"],
    "tokens": [],
}


class Limited(Submitter):
    """A submitter that may not administer users."""

    def lacks(self, permission: NodePermission) -> Failure | None:
        return failure(Code.PERMISSION_DENIED, {"permission": permission})


class Served:
    """The service of a node, and the one connection that it has."""

    def __init__(self, node: Node, fs: MemoryFileSystem) -> None:
        self.node = node
        self.fs = fs
        self.peer = FakePeer()
        self.service = admin.AdminService(node.commands, node.metrics, RecordedRequests(node.audit))

    def comes_in(self, user: str, mechanism: str, *, limited: bool = True) -> None:
        self.peer.identity = Identity(user, mechanism)
        self.peer.submits_as(Limited(user) if limited else Submitter(user))

    def begin(self, method: str, *argument: Any, **options: Any) -> FakeRequest:
        request = self.peer.request(method, *argument, service="admin", **options)
        self.service.handle([request.request])
        return request

    async def ask(self, method: str, *argument: Any, **options: Any) -> FakeRequest:
        request = self.begin(method, *argument, **options)
        while not request.answered:
            await turn()
        return request

    async def told(self) -> list[tuple[Any, ...]]:
        """The facts of the audit log: the user, the method, the target, the outcome, the code and the detail."""
        while self.node.audit.waiting or self.node.audit._busy:
            await turn()
        return [
            (*(line.get(name, "") for name in ("user", "method", "target", "outcome", "code")), line.get("detail"))
            for line in lines(self.fs)[1:]
        ]


@asynccontextmanager
async def served(fs: MemoryFileSystem | None = None, **options: Any) -> AsyncIterator[Served]:
    fs = fs or MemoryFileSystem()
    async with opened(fs, **options) as node:
        node.audit.note_head = None  # a disk that waits for the test is asked for nothing at the end
        yield Served(node, fs)


def test_the_tables_of_this_file_name_every_method() -> None:
    assert CHANGES.keys() | READS.keys() == ADMIN_METHODS.keys()


async def test_changes_are_made_and_read_back() -> None:
    async with served() as store:
        for method in ("add_role", "add_user", "add_grant", "assign_role", "set_disabled", "add_token"):
            assert (await store.ask(method, *CHANGES[method])).result == [True]
        assert (await store.ask("assign_role", "ann", "app")).result == [False]
        assert (await store.ask("user", "ann")).result == ["ann", True, True, ["app"]]
        assert (await store.ask("users")).result == [[["ann", True, True, ["app"]]], False]
        assert (await store.ask("role", "app")).result == [[], [["a/*", ["read"]]]]
        assert (await store.ask("roles", {"after": "admin", "limit": 1})).result == [[["app", [], 1]], False]
        assert (await store.ask("tokens")).result == [[["token:1", None, []]], False]
        assert (await store.ask("remove_user", "bob")).code == 2008
        assert store.node._machine.access.login("ann", 1) == (StoredVerifier(*VERIFIER), False)


async def test_a_token_has_its_end_as_an_option() -> None:
    async with served() as store:
        assert (await store.ask("add_token", "token:1", VERIFIER, [], {"expires_at_ms": 2**50})).result == [True]
        assert (await store.ask("tokens")).result == [[["token:1", 2**50, []]], False]


async def test_a_change_is_answered_when_it_and_the_lines_of_the_audit_log_are_on_the_disk() -> None:
    disk = ManualWriter()
    async with served(writer=disk) as store:
        request = store.begin("add_role", "app", [])
        for revisions in (0, 1, 1):
            await turn()
            assert not request.answered
            await disk.write()
            assert store.node.index == (revisions if revisions == 0 else 1)
        await turn()
        assert request.result == [True]


async def test_a_change_that_is_cancelled_in_time_is_taken_back() -> None:
    disk = ManualWriter()
    async with served(writer=disk) as store:
        waits = store.begin("add_role", "web", [])
        await turn()
        other = Asked(store.node, Set("k", b""))
        await turn()
        await disk.write()  # the line that it begins; the other change is with the disk then
        await turn()
        waits.cancel()
        await disk.write_all()
        assert (other.answered, waits.code) == (True, 3006)
        assert "web" not in store.node.access.roles
        assert [line[3] for line in await store.told()] == ["begun", "not_applied"]


async def test_a_repetition_is_answered_as_the_first_time() -> None:
    async with served() as store:
        first = await store.ask("add_role", "app", [], request_id=ID)
        again = await store.ask("add_role", "app", [], request_id=ID)
        assert (first.result, again.result) == ([True], [True])
        assert (TAG_REPLAYED in first.entries, TAG_REPLAYED in again.entries) == (False, True)
        assert (await store.ask("add_role", "web", [], request_id=ID)).code == 3012
        assert (await store.ask("remove_role", "app", request_id=ID)).code == 3012
        assert (await store.ask("add_parent", "app", "admin", request_id=OTHER_ID)).result == [True]
        assert (await store.ask("remove_parent", "app", "admin", request_id=OTHER_ID)).code == 3012
        assert (await store.ask("add_role", "app", [])).code == 2009


async def test_without_the_capability_a_request_id_is_not_remembered() -> None:
    async with served() as store:
        store.peer.capabilities = frozenset({"pipelining"})
        assert (await store.ask("add_role", "app", [], request_id=ID)).result == [True]
        assert (await store.ask("add_role", "app", [], request_id=ID)).code == 2009


@pytest.mark.parametrize("method", [*CHANGES, *READS])
async def test_each_method_needs_the_permission(method: str) -> None:
    async with served() as store:
        store.comes_in("bob", "SCRAM-SHA-256")
        request = await store.ask(method, *{**CHANGES, **READS}[method])
        assert request.failure is not None
        assert (request.code, request.failure.details) == (2004, {"permission": "user_admin"})
        assert store.node.index == 0


async def test_the_log_judges_what_the_user_gives() -> None:
    async with served() as store:
        changes: list[list[Any]] = [
            ["add_role", "ops", []],
            ["add_grant", "ops", ["user_admin"], "*"],
            ["add_user", "ann", None, ["ops"]],
        ]
        for change in changes:
            assert (await store.ask(*change)).result == [True]
        store.comes_in("ann", "EXTERNAL", limited=False)
        assert (await store.ask("add_role", "app", [])).result == [True]
        assert (await store.ask("assign_role", "ann", "admin")).code == 2004
        assert (await store.told())[-2:] == [
            ("ann", "admin.assign_role", "ann", "begun", 0, {"role": "admin"}),
            ("ann", "admin.assign_role", "ann", "not_applied", 2004, {"role": "admin"}),
        ]


@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "PLAIN"])
async def test_a_user_that_came_in_by_its_password_changes_it(mechanism: str) -> None:
    async with served() as store:
        await done(store.node, AddUser("bob", StoredVerifier(*VERIFIER), []), AddUser("eve", None, []))
        store.comes_in("bob", mechanism)
        other: list[Any] = [b"t" * 16, *VERIFIER[1:]]
        assert (await store.ask("set_verifier", "bob", other)).result == [True]
        assert (await store.ask("set_verifier", "eve", other)).code == 2004
        assert (await store.ask("set_verifier", "bob", None)).code == 2004
        assert store.node._machine.access.login("bob", 1) == (StoredVerifier(*other), True)


@pytest.mark.parametrize("mechanism", ["", "EXTERNAL", "PSK", "local"])
async def test_a_user_that_came_in_otherwise_has_no_password_to_prove_it_by(mechanism: str) -> None:
    async with served() as store:
        await done(store.node, AddUser("bob", None, []))
        store.comes_in("bob", mechanism)
        assert (await store.ask("set_verifier", "bob", VERIFIER)).code == 2004


@pytest.mark.parametrize("method", ["add_user", "set_verifier", "add_token"])
async def test_a_verifier_is_taken_where_no_stranger_can_read_it(method: str) -> None:
    async with served() as store:
        await done(store.node, AddUser("ann", None, []))
        argument = ["new", *CHANGES[method][1:]] if method == "add_user" else CHANGES[method]
        store.peer.remote = "192.0.2.1:5"
        request = await store.ask(method, *argument)
        assert request.failure is not None
        assert (request.code, request.failure.details["field"]) == (3003, "verifier")
        assert (await store.ask("add_role", method, [])).result == [True]
        store.peer.tls = object()
        assert (await store.ask(method, *argument)).result == [True]


@pytest.mark.parametrize(
    ("remote", "private"),
    [
        ("unix", True),
        ("127.0.0.1:5", True),
        ("[::1]:5", True),
        ("10.0.0.1:5", False),
        ("[2001:db8::1]:5", False),
        ("", False),
    ],
)
def test_a_private_link_is_inside_tls_or_stays_on_the_machine(remote: str, private: bool) -> None:
    peer: Any = FakePeer()
    peer.remote = remote
    assert is_private(peer) is private
    peer.tls = object()
    assert is_private(peer)


async def test_each_change_is_recorded_before_it_is_made_and_before_its_answer_without_its_verifier() -> None:
    async with served() as store:
        on_the_disk: list[Any] = []
        request = store.peer.request("add_user", "ann", VERIFIER, ["admin"], service="admin")
        answer = request.respond

        def respond(payload: bytes = b"", entries: bytes = b"") -> None:
            on_the_disk.extend(lines(store.fs.power_failure("drop"))[1:])
            answer(payload, entries)

        request.respond = respond  # type: ignore[method-assign]
        store.service.handle([request.request])
        while not request.answered:
            await turn()
        assert [line["outcome"] for line in on_the_disk] == ["begun", "done"]
        detail = {"verifier": "given", "roles": "admin"}
        assert await store.told() == [
            ("", "admin.add_user", "ann", "begun", 0, detail),
            ("", "admin.add_user", "ann", "done", 0, detail),
        ]
        await store.ask("remove_user", "ann")
        await store.ask("users")
        assert (await store.told())[2:] == [
            ("", "admin.remove_user", "ann", "begun", 0, None),
            ("", "admin.remove_user", "ann", "not_applied", 2012, None),
        ]
        store.comes_in("bob", "EXTERNAL")
        for method in ("remove_user", "user"):
            await store.ask(method, "ann")
        denied = {"permission": "user_admin"}
        assert (await store.told())[4:] == [
            ("bob", f"admin.{method}", "", "not_applied", 2004, denied) for method in ("remove_user", "user")
        ]
        assert KEY not in b"".join(store.fs.read(path) for path in paths(store.fs))


@pytest.mark.parametrize("method", CHANGES)
async def test_the_record_of_a_change_names_its_subject_and_all_else_that_it_says(method: str) -> None:
    op = ADMIN_METHODS[method].decode(msgspec.msgpack.encode(CHANGES[method]))
    assert not isinstance(op, Failure)
    target, detail = target_of(op)
    subject, *given = CHANGES[method]
    others = [*given[:-1], *given[-1].values()] if given and isinstance(given[-1], dict) else given
    assert target == subject
    shown = {"verifier": "given", "roles": "", "parents": "", "permissions": "read", "disabled": 1}
    assert set(detail) == {name for name in op.__struct_fields__[1:] if getattr(op, name) is not None}
    assert all(str(value) in {str(shown.get(name)), *map(str, others)} for name, value in detail.items())


@pytest.mark.parametrize(
    ("method", "payload"),
    [
        ("add_user", b""),
        ("add_user", b"\x90"),
        ("add_role", b"\x93\xa1a\x90\x01"),
        ("users", b"\x91\x81\xa1x\x01"),
        ("user", b"\x91\xa0"),
    ],
)
async def test_a_malformed_argument_is_refused(method: str, payload: bytes) -> None:
    async with served() as store:
        assert (await store.ask(method, payload=payload)).code == 3003
        assert store.node.index == 0


async def test_an_argument_that_no_method_needs_is_refused_unread() -> None:
    async with served() as store:
        request = await store.ask("add_role", payload=b"\x92\xa1a\xdd" + bytes(admin.ARGUMENT_SIZE_MAX))
        assert request.failure is not None
        assert (request.code, request.failure.details) == (3004, {"limit": admin.ARGUMENT_SIZE_MAX})


async def test_an_answer_that_the_peer_does_not_take_is_refused() -> None:
    async with served() as store:
        store.peer.max_message = 64
        assert (await store.ask("role", "admin")).code == 3004


async def test_an_unknown_method_is_refused_and_the_others_are_counted() -> None:
    async with served() as store:
        assert (await store.ask("set_password", "ann", "x")).code == 3002
        await store.ask("users")
        metrics = store.node.metrics.values()
        assert metrics['requests_total{method="admin.users"}'] == 1
        assert set(store.service.methods()) == ADMIN_METHODS.keys()


async def test_a_verifier_is_in_no_refusal() -> None:
    async with served() as store:
        wrong = [b"s" * 16, 5000, KEY, KEY]
        for method, argument in (("add_user", ["ann", wrong, []]), ("add_token", ["t", VERIFIER, []])):
            request = await store.ask(method, *argument)
            assert request.code == 3003
            assert KEY.decode() not in repr(request.failure)


async def test_users_are_whole_after_a_power_failure_right_behind_the_answer() -> None:
    fs = MemoryFileSystem()
    async with served(fs=fs) as store:
        assert (await store.ask("add_user", "ann", VERIFIER, ["admin"])).result == [True]
        after = fs.power_failure("drop", seed=0)
    async with opened(after) as again:
        assert again._machine.access.login("ann", 1).admitted
        [changed] = await done(again, SetVerifier("ann", StoredVerifier(*VERIFIER)))
        assert changed == (False,)


async def test_whoami_has_the_roles_of_the_user() -> None:
    async with served() as store:
        await done(store.node, AddUser("ann", None, ["admin"]))
        service = NodeSessionService(store.node.metrics, store.node.roles_of)
        for user, mechanism, roles in (
            ("ann", "EXTERNAL", ["admin"]),
            ("local", "local", ["admin"]),
            ("token:1", "PLAIN", []),
        ):
            store.comes_in(user, mechanism)
            request = store.peer.request("whoami", service="session")
            service.handle([request.request])
            assert request.result == {"user": user, "roles": roles, "mechanism": mechanism, "secure": False}
