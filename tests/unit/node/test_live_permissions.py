"""Open work goes by the grants of now: scans, watches, leases, tokens and remembered answers; and nothing hidden is
told by a result.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
import pytest

from haptera import connect
from haptera.errors import Failure, PermissionDenied, ServerError
from haptera.key_rules import VERSION_MAX
from haptera.kv_groups import KV_GROUPS
from haptera.node.commands import Envelope
from haptera.node.services import long_reads
from haptera.node.services.submitters import submitter_of
from haptera.node.watches import LocalFeed, watches
from haptera.peer import Identity, dial
from haptera.state import Replayed, dump_pieces, limits, load_pieces
from haptera.state.access import StoredRole, StoredUser
from haptera.state.access_operations import AddGrant, AddRole, AddToken, AddUser, RemoveGrant, RemoveToken, RemoveUser
from haptera.state.operations import (
    Count,
    Get,
    GetMany,
    GrantLease,
    OpenScan,
    OpenWatch,
    RevokeLease,
    Set,
    SetMany,
    Transact,
)
from haptera.testing import node, virtual_clock
from tests.support.verifiers import VERIFIER
from tests.unit.node.nodes import Asked, ManualWriter, done, opened, turn
from tests.unit.node.test_permissions import NOW_MS, User, denial, user_of

if TYPE_CHECKING:
    from haptera.peer import Peer
    from tests.unit.node.doubles import FakeRequest

ALL: Final = ("read", "write", "delete", "scan", "watch", "lease")
DENIED: Final = {"permission": "read", "key": "out/a"}


def again(user: User, name: str = "ann") -> User:
    """Another connection, of the user of this name."""
    other = User(user.node, name)
    other.granted = user.granted
    return other


async def rows(user: User, **options: Any) -> list[str]:
    """The keys that a scan shows."""
    request = await user.ask("scan", options)
    assert request.failure is None
    shown = [row[0] for item in request.items for row in item]
    assert request.result[:2] == [len(shown), shown[-1] if shown else None]
    return shown


# Results that hold only what may be seen


async def test_a_scan_and_a_count_show_the_keys_that_may_be_seen() -> None:
    """Trap: globs with one `*` only, or that match overlapping halves."""
    async with user_of() as user:
        await done(user.node, *(Set(key, b"1") for key in ("x/aba", "x/ab-ba", "x/a", "y")))
        await user.grant({"read", "scan"})
        assert await rows(user) == ["in/a", "in/b", "in/c"]
        assert await rows(user, reverse=True, limit=2) == ["in/c", "in/b"]
        assert await rows(user, limit=2, after="in/a") == ["in/b", "in/c"]
        assert (await user.ask("count", {})).result == [3]
        assert (await user.ask("count", {"prefix": "in/"})).result == [3]
        assert (await user.ask("count", {"prefix": "out/"})).result == [0]
        assert (await user.ask("count", {"glob": "*/a"})).result == [1]
        assert (await user.ask("count", {"glob": "in/*", "at_revision": 1})).result == [1]
        assert await rows(user, at_revision=4) == ["in/a", "in/b", "in/c"]
        await done(user.node, AddGrant("app", ["scan"], "x/ab*ba"))
        assert (await user.ask("count", {})).result == [4]
        assert (await user.ask("count", {"prefix": "x/"})).result == [1]
        assert await rows(user, keys_only=True) == ["in/a", "in/b", "in/c", "x/ab-ba"]
        assert await rows(user) == ["in/a", "in/b", "in/c"], "its value may not be read"
        await done(user.node, AddGrant("app", ["read"], "x/ab*ba"))
        assert await rows(user) == ["in/a", "in/b", "in/c", "x/ab-ba"]


async def test_a_count_is_answered_at_once_only_where_all_of_its_keys_may_be_seen() -> None:
    async with user_of() as user:
        await user.grant({"scan"})
        commands, submitter = user.node.commands, submitter_of(cast("Peer", user.peer))
        assert commands.counts_at_once(submitter, Count("in/"))
        assert commands.counts_at_once(submitter, Count(glob="in/a*"))
        assert not commands.counts_at_once(submitter, Count())
        assert not commands.counts_at_once(submitter, Count("i"))
        assert Asked(user.node, Count("in/"), submitter=submitter).result == (3,)
        assert Asked(user.node, Count(), submitter=submitter).failures == [(2004, "not_applied")]
        assert await commands.count(submitter, Count()) == ((3,), 6)


async def test_a_scan_with_costly_globs_is_made_in_slices() -> None:
    async with user_of() as user:
        await done(user.node, SetMany([(f"{number:05}" + 200 * "x", b"") for number in range(200)]))
        await done(user.node, *(AddGrant("app", ["scan"], f"*{number}*?*y") for number in range(30)))
        scan = await user.node.commands.open_scan(submitter_of(cast("Peer", user.peer)), OpenScan(keys_only=True))
        assert not isinstance(scan, Failure)
        page = scan.page(1 << 20, 1 << 20)
        assert not isinstance(page, Failure)
        assert not page.done, "the work of matching bounds a page"
        scan.close()


async def test_the_answer_is_the_same_whether_a_key_is_there_or_not() -> None:
    """Trap: 4001 in place of 2004 tells a stranger which keys there are."""
    requests: list[tuple[str, Any]] = [
        ("get", ()),
        ("exists", ()),
        ("ttl", ()),
        ("history", ()),
        ("delete", ()),
        ("expire", (1000,)),
        ("get_and_delete", ()),
        ("increment", (1,)),
        ("rename", ("in/a",)),
        ("set", (b"1", {"if": "absent"})),
        ("set", (b"1", {"if_version": 7})),
    ]
    async with user_of() as user:
        await user.grant(ALL)
        for method, rest in requests:
            there, absent = [await user.ask(method, key, *rest) for key in ("out/a", "out/x")]
            assert (found := denial(there)) is not None
            assert denial(absent) == {**found, "key": "out/x"}


async def test_no_old_value_or_version_is_told_to_one_that_may_only_write() -> None:
    """Trap: commands that return old values with write permission alone."""
    async with user_of() as user:
        await user.grant({"write", "delete", "lease"})
        for method, *argument in (
            ("set", "in/a", b"2", {"return_previous": True}),
            ("set", "in/a", b"2", {"if_version": 0}),
            ("delete", "in/a", {"return_previous": True}),
            ("delete", "in/a", {"if_version": 0}),
            ("get_and_delete", "in/a"),
            ("get_and_expire", "in/a", {"ttl_ms": 1}),
            ("increment", "in/a", 0),
            ("rename", "in/a", "in/b"),
        ):
            assert denial(await user.ask(method, *argument)) == {"permission": "read", "key": "in/a"}
        for compare in (["in/a", "version", ">", 0], ["in/a", "value", "=", b"1"], ["in/a", "exists", "=", True]):
            refused = denial(await user.ask("transact", [compare], [["set", ["in/b", b""]]]))
            assert refused == {"permission": "read", "key": "in/a", "compare": 0}
        absent = await user.ask("set", "in/a", b"2", {"if": "absent"})
        assert absent.failure is not None
        assert (absent.code, absent.failure.details) == (4003, {"key": "in/a"})
        assert user.node.revision == 6


@pytest.mark.parametrize("count", [3, 3000, 40_000])
async def test_each_key_of_a_long_list_is_judged(count: int) -> None:
    """Long lists are judged in slices, before they are applied."""
    keys = [f"in/{number}" for number in range(count)]
    async with user_of() as user:
        await user.grant(ALL)
        for position in (0, count // 2, count):
            mixed = [*keys[:position], "out/a", *keys[position:]]
            assert denial(await user.ask("get_many", mixed)) == DENIED
            written = await user.ask("set_many", [[key, b""] for key in mixed])
            assert denial(written) == {"permission": "write", "key": "out/a"}
            assert denial(await user.ask("delete_many", mixed)) == {"permission": "delete", "key": "out/a"}
        leased = await user.ask("set_many", [[key, b""] for key in keys], {"lease": 1})
        assert leased.code == 4010
        assert (await user.ask("set_many", [[key, b""] for key in keys])).result == [7]
        await user.grant({"write"})
        refused = denial(await user.ask("set_many", [[key, b""] for key in keys], {"lease": 1}))
        assert refused == {"permission": "lease", "key": "in/0"}
        refused = denial(await user.ask("set_many", [[key, b""] for key in keys], {"fence": 1}))
        assert refused == {"permission": "lease"}


async def test_a_long_list_that_was_judged_is_judged_again_if_the_grants_have_changed_meanwhile() -> None:
    async with user_of() as user:
        await user.grant(ALL)
        submitter = submitter_of(cast("Peer", user.peer))
        items = [(f"in/{number}", b"") for number in range(3000)]
        command = await user.node.commands.turns.run(None, user.node.commands.check_steps(submitter, SetMany(items)))
        assert isinstance(command, Envelope)
        await user.grant({"read"})
        assert Asked(user.node, command, submitter=submitter).failures == [(2004, "not_applied")]
        await user.grant(ALL)
        asked = Asked(user.node, command, submitter=submitter)
        await user.node.drain()
        assert asked.result == (7,)


async def test_globs_cost_work_where_a_long_list_is_judged() -> None:
    async with user_of() as user:
        await done(user.node, *(AddGrant("app", ["read"], f"*{number}*?*/a") for number in range(30)))
        keys = [f"{number}x/a" for number in range(30)] * 20
        steps = user.node.commands.read_steps(submitter_of(cast("Peer", user.peer)), GetMany(keys), 1 << 20)
        assert len(list(steps)) > 20


# What is open


async def test_the_next_page_of_a_scan_is_judged_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_reads, "PAGE_ROWS_MAX", 1)
    async with user_of() as user:
        await user.grant({"scan", "read"})
        request = user.peer.request("scan", {})
        request.blocked = asyncio.Event()
        user.kv.handle([request.request])
        while not request.items:
            await turn()
        await done(user.node, RemoveGrant("app", ["scan", "read"], "in/*"), AddGrant("app", ["scan", "read"], "in/c"))
        request.blocked.set()
        while not request.answered:
            await turn()
        assert [row[0] for item in request.items for row in item] == ["in/a", "in/c"]
        assert len(user.node._scans) == 0


async def test_a_scan_ends_when_nothing_may_be_seen_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_reads, "PAGE_ROWS_MAX", 1)
    async with user_of() as user:
        await user.grant({"scan", "read"})
        request = user.peer.request("scan", {})
        request.blocked = asyncio.Event()
        user.kv.handle([request.request])
        while not request.items:
            await turn()
        await done(user.node, RemoveUser("ann"))
        request.blocked.set()
        while not request.answered:
            await turn()
        assert denial(request) == {"permission": "scan"}
        assert len(user.node._scans) == 0


def watching(user: User, **options: Any) -> FakeRequest:
    request = user.peer.request("watch", options)
    user.kv.handle([request.request])
    return request


def events(request: FakeRequest) -> list[str]:
    return [event[1] for item in request.items for event in item[1]]


async def test_a_watch_ends_before_an_event_behind_the_loss_of_its_permission(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watches, "_JUDGED_TOGETHER", 1)
    for lost in ("watch", "read"):
        async with user_of() as user:
            await user.grant({"watch", "read"})
            of_prefix, of_key = watching(user, prefix="in/"), watching(user, key="in/a")
            root = again(user, "root")
            others = watching(root, prefix="in/")
            await turn()
            await done(user.node, Set("in/a", b"2"))
            await turn()
            await done(user.node, RemoveGrant("app", [lost], "in/*"), Set("in/a", b"3"))
            await done(user.node, Set("in/a", b"4"))
            for _ in range(20):
                await turn()
            assert denial(of_prefix) == {"permission": lost}
            assert denial(of_key) == {"permission": lost, "key": "in/a"}
            assert others.failure is None
            assert events(others) == ["in/a"] * 3
            assert events(of_prefix)[:1] == ["in/a"]
            assert len(user.node.watches) == 1


async def test_a_watch_that_loses_its_permission_by_an_entry_alone_ends() -> None:
    """No event of a key leads to it."""
    async with user_of() as user:
        await user.grant({"watch", "read"})
        request = watching(user, prefix="in/")
        await turn()
        await done(user.node, RemoveUser("ann"))
        for _ in range(5):
            await turn()
        assert denial(request) == {"permission": "watch"}
        later = watching(user, prefix="in/")
        assert denial(later) == {"permission": "watch"}


async def test_a_watch_goes_on_through_changes_of_other_grants() -> None:
    async with user_of() as user:
        await user.grant({"watch", "read"})
        request = watching(user, prefix="in/x")
        await done(user.node, AddGrant("app", ["delete"], "y"), AddUser("bob", VERIFIER, []))
        await user.grant({"watch", "read", "lease"})
        await done(user.node, Set("in/x", b"1"))
        for _ in range(5):
            await turn()
        assert events(request) == ["in/x"]
        assert not request.answered


async def test_a_watch_that_is_behind_is_judged_before_each_item() -> None:
    async with user_of() as user:
        await user.grant({"watch", "read"})
        await turn()  # all watches have been judged by this grant
        feed = LocalFeed()
        submitter = submitter_of(cast("Peer", user.peer))
        user.node.watches.open(submitter, OpenWatch(prefix="in/", start_revision=1), feed)
        user.node._machine.access.adopt(users={})  # and nothing is published meanwhile
        found = [await feed.next()]
        with pytest.raises(PermissionDenied):
            await feed.next()
        assert len(found) == 1, "the mark"


async def test_the_entries_at_the_beginning_of_a_watch_need_no_permission_to_scan() -> None:
    async with user_of() as user:
        await user.grant({"watch", "read"})
        request = watching(user, prefix="in/", initial=True)
        for _ in range(10):
            await turn()
        assert events(request) == ["in/a", "in/b", "in/c"]


@virtual_clock
async def test_a_watch_of_a_token_ends_when_the_token_expires() -> None:
    loop = asyncio.get_running_loop()
    async with user_of(
        clock_ms=lambda: NOW_MS + int(loop.time() * 1000), monotonic_ns=lambda: int(loop.time() * 1e9)
    ) as user:
        await user.grant({"watch", "read"})
        now_ms = user.node.clock_ms()
        await done(user.node, AddToken("token:short", VERIFIER, ["app"], now_ms + 5000))
        holder = again(user, "token:short")
        request = watching(holder, prefix="in/")
        await asyncio.sleep(4.5)
        assert denial(await holder.ask("get", "in/a")) is None
        assert not request.answered
        await asyncio.sleep(1)
        assert denial(request) == {"permission": "watch"}
        assert denial(await holder.ask("get", "in/a")) == {"permission": "read", "key": "in/a"}
        assert len(user.node.watches) == 0


async def test_a_token_that_is_removed_may_do_nothing_at_once() -> None:
    async with user_of("token:t") as user:
        await user.grant(ALL)
        request = watching(user, prefix="in/")
        await done(user.node, RemoveToken("token:t"))
        await turn()
        assert denial(request) == {"permission": "watch"}
        assert denial(await user.ask("get", "in/a")) == {"permission": "read", "key": "in/a"}


@virtual_clock
async def test_samples_and_backups_end_with_the_permission() -> None:
    async with user_of() as user:
        await user.grant({"metrics", "backup"})
        samples = user.peer.request("watch_metrics", {"interval_ms": 1000}, service="server")
        backup = user.peer.request("backup", service="server")
        backup.blocked = asyncio.Event()
        user.server.handle([samples.request, backup.request])
        await asyncio.sleep(2.5)
        assert len(samples.items) == 3
        await user.grant(set())
        backup.blocked.set()
        await asyncio.sleep(2)
        assert denial(samples) == {"permission": "metrics"}
        assert denial(backup) == {"permission": "backup"}
        assert len(user.server._watchers) == 0


# Leases


async def leases_of(user: User) -> list[int]:
    return [row[0] for row in (await user.ask("leases")).result[0]]


async def test_a_lease_belongs_to_the_user_that_was_granted_it() -> None:
    async with user_of() as ann:
        await done(ann.node, AddUser("bob", VERIFIER, ["app"]))
        await ann.grant(ALL)
        bob, root = again(ann, "bob"), again(ann, "root")
        lease = (await ann.ask("grant_lease", 60_000)).result[0]
        other = (await bob.ask("grant_lease", 60_000)).result[0]
        assert await leases_of(ann) == [lease]
        assert await leases_of(bob) == [other]
        assert await leases_of(root) == [lease, other]
        assert (await ann.ask("leases", {"after": lease})).result == [[], False]
        assert (await bob.ask("renew_lease", [lease, other, 99_999])).result == [[None, 60_000, None]]
        attached = ("set", "in/a", b"1", {"lease": lease})
        for method, *argument in (
            attached,
            ("set_many", [["in/a", b"1"]], {"lease": lease}),
            ("revoke_lease", lease),
        ):
            refused = await bob.ask(method, *argument)
            assert refused.failure is not None
            assert (refused.code, refused.failure.details) == (4010, {"lease": lease})
        refused = await bob.ask("transact", [], [["get", ["in/a"]], ["set", list(attached[1:])]])
        assert refused.failure is not None
        assert (refused.code, refused.failure.details["operation"]) == (4010, 1)
        assert (await ann.ask(*attached)).failure is None
        assert (await root.ask("renew_lease", [lease])).result == [[60_000]]
        assert (await root.ask("revoke_lease", lease)).result[0] == 1
        assert await leases_of(ann) == []


async def test_a_lease_of_another_user_is_not_told_from_one_that_has_ended() -> None:
    """Wherever the command looks at it, or does not: the answers are the same but for the id."""
    async with user_of() as bob:
        await done(bob.node, AddUser("carl", VERIFIER, ["app"]))
        await bob.grant(ALL)
        carl = again(bob, "carl")
        alive, ended = [(await carl.ask("grant_lease", 60_000)).result[0] for _ in range(2)]
        assert (await carl.ask("revoke_lease", ended)).result[0] == 0
        assert (await bob.ask("set", "in/a", b"no number")).failure is None

        async def answers(lease: int) -> list[Any]:
            attached = ["set", ["in/a", b"1", {"lease": lease}]]
            unmade = [["in/a", "exists", "=", False]]
            for_each: list[tuple[Any, ...]] = [
                ("set_many", [], {"lease": lease}),
                ("set_many", [["in/a", b"1"]], {"lease": lease}),
                ("set", "in/a", b"1", {"lease": lease}),
                ("set", "in/a", b"1", {"lease": lease, "if": "absent"}),
                ("revoke_lease", lease),
                ("transact", unmade, [attached], []),
                ("transact", unmade, [attached], [["get", ["in/a"]], attached]),
                ("transact", [], [["get", ["in/a"]], attached], [attached]),
                ("transact", [], [["increment", ["in/a", 1]], attached]),
            ]
            told: list[Any] = []
            for number, (method, *argument) in enumerate(for_each):
                once: dict[str, Any] = {"request_id": bytes([lease % 256, number] * 8)}
                for _ in range(2):  # the second time by its remembered answer, if there is one
                    request = await bob.ask(method, *argument, **once)
                    refused = request.failure
                    told.append(request.result if refused is None else (refused.code, refused.details))
            return told

        def shown(told: list[Any], lease: int) -> str:
            text = repr(told)
            assert str(VERSION_MAX) not in text
            assert f"(4010, {{'lease': {lease}}})" in text
            return text.replace(f"'lease': {lease}", "'lease': it")

        of_other, of_none = await answers(alive), await answers(ended)
        assert shown(of_other, alive) == shown(of_none, ended)
        assert [each for each in of_other if isinstance(each, list)], "some are made"
        assert bob.node._machine.leases.by_id[alive].keys == {}


async def test_a_remembered_failure_names_the_lease_that_was_given() -> None:
    async with opened() as node:
        node._machine.access.adopt(roles={"app": _role()}, users={"ann": _user(), "bob": _user()})
        ann, bob = node.commands.submitter("ann"), node.commands.submitter("bob")
        granted = Asked(node, GrantLease(60_000), submitter=ann)
        while not granted.answered:
            await turn()
        parts: list[Any] = [Get("in/a"), Set("in/a", b"", lease=1)]
        sent = [
            Envelope(op, bytes([number] * 16), bytes(32), resent=True)
            for number, op in enumerate([Set("in/a", b"", lease=1), RevokeLease(1), Transact([], parts)])
        ]
        for replayed in (False, True):
            asked = Asked(node, *sent, submitter=bob)
            while not asked.answered:
                await turn()
            assert [isinstance(each, Replayed) for each in asked.results] == [replayed] * 3
            results = [each.result if isinstance(each, Replayed) else each for each in asked.results]
            assert [each.details["lease"] for each in results if isinstance(each, Failure)] == [1, 1, 1]


async def test_a_lease_that_is_still_to_come_cannot_be_guessed() -> None:
    """Its id is the next revision, which each user can tell."""
    writer = ManualWriter()
    async with opened(writer=writer) as node:
        node._machine.access.adopt(roles={"app": _role()}, users={"ann": _user(), "bob": _user()})
        ann, bob = node.commands.submitter("ann"), node.commands.submitter("bob")
        granted = Asked(node, GrantLease(60_000), submitter=ann)
        taken = Asked(node, Set("in/a", b"1", lease=1), RevokeLease(1), submitter=bob)
        await writer.write_all()
        assert granted.result == (1, 60_000)
        assert taken.failures == [(4010, "not_applied")] * 2
        assert node._machine.leases.by_id[1].keys == {}


def _role() -> StoredRole:
    return StoredRole(grants=(("in/*", ("read", "write", "lease")),))


def _user() -> StoredUser:
    return StoredUser(VERIFIER, ("app",))


async def test_the_retry_of_a_change_under_a_lease_that_has_ended_has_its_answer() -> None:
    async with user_of() as user:
        await user.grant(ALL)
        lease = (await user.ask("grant_lease", 60_000)).result[0]
        once = ("set", "in/a", b"1", {"lease": lease})
        first = await user.ask(*once, request_id=bytes(16))
        assert (await user.ask("revoke_lease", lease)).result[0] == 1
        retried = await user.ask(*once, request_id=bytes(16))
        assert retried.result == first.result


async def test_a_lease_of_a_removed_user_is_renewed_no_more_and_ends_for_an_administrator() -> None:
    async with user_of() as user:
        await user.grant(ALL)
        lease = (await user.ask("grant_lease", 60_000)).result[0]
        await done(user.node, RemoveUser("ann"))
        assert denial(await user.ask("renew_lease", [lease])) == {"permission": "lease"}
        assert (await again(user, "root").ask("revoke_lease", lease)).failure is None


# Remembered answers


async def test_another_users_request_id_finds_nothing() -> None:
    async with user_of() as ann:
        await done(ann.node, AddUser("bob", VERIFIER, ["app"]))
        await ann.grant(ALL)
        bob = again(ann, "bob")
        answers = [await each.ask("set", "in/a", b"1", request_id=bytes(16)) for each in (ann, bob, ann, bob)]
        assert [answer.result[0] for answer in answers] == [7, 8, 7, 8]


async def test_permission_is_checked_again_before_a_remembered_answer_is_given() -> None:
    async with user_of() as user:
        await user.grant(ALL)
        once = ("get_and_delete", "in/a")
        first = await user.ask(*once, request_id=bytes(16))
        await user.grant({"delete"})
        assert denial(await user.ask(*once, request_id=bytes(16))) == {"permission": "read", "key": "in/a"}
        await user.grant(ALL)
        assert (await user.ask(*once, request_id=bytes(16))).result == first.result


async def test_the_answers_of_all_users_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those of the anonymous user alone."""
    monkeypatch.setattr(limits, "ANSWERS_PER_USER_MAX", 5)
    async with user_of() as user:
        await user.grant(ALL)
        for number in range(4):
            assert user.node.commands.aging._timer is None
            await user.ask("set", "in/a", b"1", request_id=bytes([number]) * 16)
        assert user.node.remembered_answers == (4, 5)
        assert user.node.commands.aging._timer is not None


async def test_the_leases_of_users_are_there_after_a_snapshot() -> None:
    """Trap: users that are not replicated."""
    async with user_of() as user:
        await user.grant(ALL)
        lease = (await user.ask("grant_lease", 60_000)).result[0]
        machine = user.node._machine
        loaded = load_pieces(dump_pieces(machine), index=machine.index, time_ms=machine.time_ms)
        loaded.check()
        assert loaded.digest() == machine.digest()
        assert loaded.leases.by_id[lease].user == "ann"
        assert list(loaded.leases.of_user("ann")) == [lease]
        permits = loaded.access.permits("ann", NOW_MS)
        assert permits.may("read", "in/a")
        assert not permits.may("read", "out/a")


async def test_a_served_connection_is_judged_by_the_user_that_it_has_proved_to_be() -> None:
    async with node(storage="memory") as url, dial(url, groups=KV_GROUPS) as peer:
        await peer.ready()
        store = url.server._node
        await done(store, AddRole("app", []), AddGrant("app", ["write"], "in/*"), AddUser("ann", VERIFIER, ["app"]))
        for served in url.server._servers:
            for other in served.peers:
                other.identity = Identity("ann", "SCRAM-SHA-256")
        encode = msgspec.msgpack.encode
        assert msgspec.msgpack.decode(await peer.call("kv", "set", encode(("in/a", b"1")))) == [1, None]
        with pytest.raises(ServerError) as caught:
            await peer.call("kv", "get", encode(("in/a",)))
        assert (caught.value.code, caught.value.outcome) == (2004, "not_applied")
        assert caught.value.details == {"permission": "read", "key": "in/a"}
        with pytest.raises(ServerError):
            await peer.call("server", "metrics", encode(()))


async def test_a_local_copy_ends_with_the_permission_of_its_watch() -> None:
    async with node(storage="memory") as url, connect(url) as db:
        await db.set("in/a", "1")
        store = url.server._node
        await done(store, AddRole("app", []), AddUser("ann", VERIFIER, ["app"]))
        await done(store, AddGrant("app", ["watch", "read"], "in/*"))
        for other in [peer for served in url.server._servers for peer in served.peers]:
            other.identity = Identity("ann", "SCRAM-SHA-256")
            other.attributes.pop("haptera.submitter")
        async with db.cached(prefix="in/") as copy:
            assert list(copy) == ["in/a"]
            await done(store, RemoveUser("ann"))
            while not copy.ended:
                await asyncio.sleep(0.001)
            assert isinstance(copy.error, PermissionDenied)
