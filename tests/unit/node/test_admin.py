"""The admin service (protocol, section 7.3): users, roles, grants and tokens over a connection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import Code, Failure, failure
from haptera.node.commands import Submitter
from haptera.node.services import admin
from haptera.node.services.admin_methods import ADMIN_METHODS
from haptera.node.services.private_links import is_private
from haptera.node.services.session import NodeSessionService
from haptera.peer import Identity
from haptera.state.access_operations import AddUser, SetVerifier, StoredVerifier
from haptera.testing import MemoryFileSystem
from tests.unit.node.doubles import TAG_REPLAYED, FakePeer, FakeRequest
from tests.unit.node.nodes import ManualWriter, done, opened, turn

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
}
READS: dict[str, list[Any]] = {"users": [], "user": ["ann"], "roles": [], "role": ["admin"], "tokens": []}


class Limited(Submitter):
    """A submitter that may not administer users."""

    def lacks(self, permission: NodePermission) -> Failure | None:
        return failure(Code.PERMISSION_DENIED, {"permission": permission})


class Served:
    """The service of a node, and the one connection that it has."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.told: list[tuple[Any, ...]] = []
        self.peer = FakePeer()
        self.service = admin.AdminService(node.commands, node.metrics, self._note)

    def _note(self, submitter: Submitter, peer: Any, method: str, target: dict[str, Any], why: Failure | None) -> None:
        assert peer is self.peer
        self.told.append((submitter.user, method, target, None if why is None else why.code))

    def comes_in(self, user: str, mechanism: str, *, limited: bool = True) -> None:
        self.peer.identity = Identity(user, mechanism)
        self.peer.submits_as(Limited(user) if limited else Submitter(user))

    def begin(self, method: str, *argument: Any, **options: Any) -> FakeRequest:
        request = self.peer.request(method, *argument, service="admin", **options)
        self.service.handle([request.request])
        return request

    async def ask(self, method: str, *argument: Any, **options: Any) -> FakeRequest:
        request = self.begin(method, *argument, **options)
        await turn()
        return request


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    async with opened(**options) as node:
        yield Served(node)


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


async def test_a_change_is_answered_when_it_is_on_the_disk() -> None:
    disk = ManualWriter()
    async with served(writer=disk) as store:
        request = await store.ask("add_role", "app", [])
        assert not request.answered
        await disk.write()
        assert request.result == [True]


async def test_a_change_that_is_cancelled_in_time_is_taken_back() -> None:
    disk = ManualWriter()
    async with served(writer=disk) as store:
        first = await store.ask("add_role", "app", [])
        waits = await store.ask("add_role", "web", [])
        waits.cancel()
        assert waits.code == 3006
        await disk.write_all()
        assert first.result == [True]
        assert (await store.ask("role", "web")).code == 2010
        assert [told[2] for told in store.told] == [{"role": "app", "parents": []}]


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
        assert store.told[-1] == ("ann", "assign_role", {"user": "ann", "role": "admin"}, 2004)


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


async def test_each_change_is_told_before_its_answer_and_without_its_verifier() -> None:
    async with served() as store:
        request = store.peer.request("add_user", "ann", VERIFIER, ["admin"], service="admin")
        answered: list[bool] = []
        store.service._on_change = lambda *told: answered.append(request.answered) or store._note(*told)  # type: ignore[func-returns-value]
        store.service.handle([request.request])
        await turn()
        assert (request.result, answered) == ([True], [False])
        assert store.told == [("", "add_user", {"user": "ann", "roles": ["admin"]}, None)]
        await store.ask("remove_user", "ann")
        await store.ask("users")
        assert store.told[1:] == [("", "remove_user", {"user": "ann"}, 2012)]
        store.comes_in("bob", "EXTERNAL")
        await store.ask("remove_user", "ann")
        assert store.told[2:] == [("bob", "remove_user", {"user": "ann"}, 2004)]


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
