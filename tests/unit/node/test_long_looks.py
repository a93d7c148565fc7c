"""The keys of a request are compared with the patterns of its user in turns, where that takes long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

import pytest

from haptera.errors import Failure
from haptera.node.commands import Envelope
from haptera.node.services import large_requests
from haptera.node.services.submitters import submitter_of
from haptera.state import Permits, limits
from haptera.state.access_operations import AddGrant, RemoveGrant
from haptera.state.grant_patterns import look_work
from haptera.state.operations import Set
from tests.unit.node.nodes import done, turn
from tests.unit.node.test_permissions import (
    FEW,
    KV_CASES,
    PARTS,
    Case,
    User,
    denial,
    expected,
    name_of,
    of_place,
    user_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from haptera.peer import Peer
    from tests.unit.node.doubles import FakeRequest

#: Two patterns that fill the room of one store, and a key that both are compared with at each of its places.
COSTLY: Final = [f"*{'?' * 245}{end}*" for end in "bc"]
KEY: Final = "a" * 4095 + "c"
LOOK: Final = look_work(limits.GRANT_RESTS_SIZE_MAX, len(KEY))
#: Looks at such a key between two looks for small requests: some passes of the loop.
LOOKS_PER_TURN_MAX: Final = 4


def keys(count: int) -> list[str]:
    return [f"{number:03}{KEY[3:]}" for number in range(count)]


async def costly(user: User, *permissions: Any) -> None:
    assert await done(user.node, *(AddGrant("app", [*permissions], pattern) for pattern in COSTLY)) == [(True,)] * 2


class Turns:
    """Counts the turns of the loop in which requests are answered, and asks for a small one in each."""

    def __init__(self, user: User) -> None:
        self.other = User(user.node, "root")
        self.count = 0
        self.beside = 0

    async def until_answered(self, *requests: FakeRequest) -> None:
        while not all(request.answered for request in requests):
            small = self.other.peer.request("exists", "in/a")
            self.other.kv.handle([small.request])
            self.beside += small.answered
            self.count += 1
            assert self.count < 50_000, "it is never answered"
            await turn()


def ask(user: User, method: str, *argument: Any) -> FakeRequest:
    request = user.peer.request(method, *argument)
    user.kv.handle([request.request])
    return request


@pytest.fixture
def _burdened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is judged in slices, whatever its user has."""
    monkeypatch.setattr(large_requests, "_LOOKS_WORK_MAX", -1)
    monkeypatch.setattr(Permits, "burdens", property(lambda self: True))


@pytest.mark.usefixtures("_burdened")
@pytest.mark.parametrize("row", KV_CASES, ids=name_of)
async def test_a_request_that_is_judged_in_slices_is_judged_by_the_same_permissions(row: Case) -> None:
    async with user_of() as user:
        for granted in FEW:
            await user.grant(granted)
            for where in ("in/", "out/"):
                before = user.node.revision
                refused = await user.outcome(row, where)
                assert of_place(refused) == expected(row, granted, where), (granted, where)
                assert refused is None or user.node.revision == before


@pytest.mark.usefixtures("_burdened")
@pytest.mark.parametrize("row", PARTS, ids=name_of)
async def test_each_part_of_a_transact_is_judged_in_slices_by_the_same_permissions(row: Case) -> None:
    async with user_of() as user:
        for granted in FEW:
            await user.grant(granted)
            operation = [row.method, row.argument("in/a", "in/b", "in/")]
            wanted = expected(row, granted, "in/")
            for number, branches in enumerate((([operation], []), ([], [operation]))):
                refused = denial(await user.ask("transact", [], *branches))
                branch = ("then", "otherwise")[number]
                assert refused == (wanted and {**wanted, "branch": branch, "operation": 0}), granted


async def test_the_parts_of_a_transact_are_judged_in_many_turns_at_the_worst_grants() -> None:
    async with user_of() as user:
        await costly(user, "read")
        turns = Turns(user)
        asked = ask(user, "transact", [], [["get", [key]] for key in keys(limits.TRANSACT_PARTS_MAX)])
        await turns.until_answered(asked)
        assert asked.failure is None
        assert turns.beside >= limits.TRANSACT_PARTS_MAX // LOOKS_PER_TURN_MAX


async def test_a_hundred_gets_of_one_batch_are_judged_in_many_turns_at_the_worst_grants() -> None:
    async with user_of() as user:
        await costly(user, "read")
        turns = Turns(user)
        asked = [user.peer.request("get", key) for key in keys(100)]
        user.kv.handle([request.request for request in asked])
        await turns.until_answered(*asked)
        assert {request.code for request in asked} == {4001}
        assert turns.beside >= 100 // LOOKS_PER_TURN_MAX


async def test_the_gets_of_many_connections_in_one_turn_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look takes a tenth of a slice, and the batch has room for some of them."""
    async with user_of() as user:
        await costly(user, "read")
        monkeypatch.setattr(large_requests, "_LOOKS_WORK_MAX", 10 * LOOK)
        others = [User(user.node) for _ in range(20)]
        asked = [ask(other, "get", KEY[:100]) for other in others]
        at_once = [request for request in asked if request.answered]
        assert 0 < len(at_once) < len(asked)
        await Turns(user).until_answered(*asked)
        assert {request.code for request in asked} == {2004}


async def test_a_small_key_beside_small_patterns_stays_in_the_batch() -> None:
    async with user_of() as user:
        await done(user.node, AddGrant("app", ["read"], "in/*/log"))
        assert ask(user, "get", "in/a/log").code == 4001


async def test_a_key_that_is_denied_is_refused_in_slices_too() -> None:
    async with user_of() as user:
        await costly(user, "read")
        refused = await user.ask("transact", [], [["get", [KEY]], ["get", [KEY[:-1] + "d"]]])
        denied = {"permission": "read", "key": KEY[:-1] + "d", "branch": "then", "operation": 1}
        assert denial(refused) == denied


async def test_a_command_that_was_judged_in_slices_is_judged_again_where_the_grants_have_changed() -> None:
    async with user_of() as user:
        await costly(user, "write")
        commands = user.node.commands
        submitter = submitter_of(cast("Peer", user.peer))
        command = await commands.turns.run(None, commands.check_steps(submitter, Set(KEY, b"")))
        assert isinstance(command, Envelope)
        await done(user.node, RemoveGrant("app", ["write"], COSTLY[1]))
        again = await commands.turns.run(None, commands.judge_steps(submitter, command))
        assert isinstance(again, Failure)
        assert (again.code, again.details) == (2004, {"permission": "write", "key": KEY})
        await done(user.node, AddGrant("app", ["write"], COSTLY[1]))
        again = await commands.turns.run(None, commands.judge_steps(submitter, command))
        assert isinstance(again, Envelope)
        assert again.judged is submitter.permits()


async def test_a_request_whose_grants_are_withdrawn_while_it_is_judged_is_refused() -> None:
    async with user_of() as user:
        await costly(user, "read", "write")
        asked = ask(user, "transact", [], [["set", [key, b""]] for key in keys(limits.TRANSACT_PARTS_MAX)])
        for _ in range(20):
            await turn()
        assert not asked.answered
        revision = user.node.revision
        await done(user.node, RemoveGrant("app", ["write"], COSTLY[1]))
        await Turns(user).until_answered(asked)
        assert denial(asked) == {"permission": "write", "key": keys(1)[0], "branch": "then", "operation": 0}
        assert user.node.revision == revision


@pytest.fixture
async def many_grants() -> AsyncIterator[User]:
    async with user_of() as user:
        changes = [AddGrant("app", ["scan"] if number % 2 else ["read"], f"{number}/*/x") for number in range(600)]
        assert await done(user.node, *changes) == [(True,)] * 600
        yield user


async def test_the_first_request_behind_a_change_of_many_grants_is_judged_in_turns(many_grants: User) -> None:
    user = many_grants
    first = ask(user, "get", "0/a/x")
    assert not first.answered
    await Turns(user).until_answered(first)
    assert first.code == 4001
    assert ask(user, "get", "1/a/x").code == 2004


async def test_an_open_scan_and_a_watch_go_on_behind_a_change_of_many_grants(many_grants: User) -> None:
    user = many_grants
    await done(user.node, AddGrant("app", ["read", "scan", "watch"], "in/*"))
    watched, scanned = ask(user, "watch", {"key": "in/a"}), ask(user, "scan", {"prefix": "in/"})
    await Turns(user).until_answered(scanned)
    assert [row[0] for item in scanned.items for row in item] == ["in/a", "in/b", "in/c"]
    await done(user.node, AddGrant("app", ["read"], "more/*/x"), Set("in/a", b"2"))
    for _ in range(100):
        await turn()
    assert [event[1] for item in watched.items for event in item[1]] == ["in/a"]
    await done(user.node, RemoveGrant("app", ["watch"], "in/*"))
    await Turns(user).until_answered(watched)
    assert denial(watched) == {"permission": "watch", "key": "in/a"}
