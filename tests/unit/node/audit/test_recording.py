"""The requests of a node in its audit log (spec/audit.md, section 3)."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import Code, failure
from haptera.node.audit import command_events
from haptera.node.commands import Submitter
from haptera.node.health import health
from haptera.node.services.kv import KvService
from haptera.node.services.recorded_requests import RecordedRequests
from haptera.node.services.recording import AuditRecording
from haptera.node.services.server import ServerService
from haptera.peer import Identity
from haptera.testing.filesystem import MemoryFileSystem
from tests.support.planted import VALUE
from tests.unit.node.audit.logs import lines, methods, verified
from tests.unit.node.doubles import FakePeer, FakeRequest
from tests.unit.node.nodes import CONFIG, opened, turn

if TYPE_CHECKING:
    from haptera.node.config import NodeConfig
    from haptera.node.node import Node


def config(**options: Any) -> NodeConfig:
    return msgspec.structs.replace(CONFIG, **options)


def peer_of(user: str = "ann") -> FakePeer:
    peer = FakePeer(
        capabilities=frozenset({"pipelining", "idempotency", "kv_transact", "kv_ttl", "kv_watch", "kv_history"})
    )
    peer.identity, peer.remote, peer.session = Identity(user, "SCRAM-SHA-256"), "10.0.0.9:4444", b"\xab" * 16
    peer.submits_as(Submitter(user))
    return peer


async def ask(node: Node, peer: FakePeer, *requests: FakeRequest) -> None:
    service = KvService(node.commands, node.metrics, node.watches, AuditRecording(node.audit, node.config))
    service.handle([request.request for request in requests])
    while not all(request.answered for request in requests):
        await turn()
    await settled(node)


async def settled(node: Node) -> None:
    while node.audit.waiting or node.audit._busy:
        await turn()


def requests_of(peer: FakePeer) -> list[FakeRequest]:
    return [
        peer.request("set", "config/a", VALUE),
        peer.request("get", "config/a"),
        peer.request("get", "missing"),
        peer.request("set_many", [["x", VALUE], ["y", VALUE]]),
        peer.request("get_many", ["x", "y", "z"]),
        peer.request("delete", "config/a", {"if_version": 99}),
        peer.request("transact", [["x", "value", "=", VALUE]], [["set", ["t", VALUE]], ["get", ["x"]]], []),
        peer.request("scan", {"prefix": "config/"}),
        peer.request("clear", {"prefix": "zz"}),
    ]


async def test_requests_of_the_store_are_not_recorded_unless_that_is_configured() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        peer = peer_of()
        await ask(node, peer, *requests_of(peer))
        assert "audit" not in fs.listdir("/data")


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("writes", {"kv.set", "kv.set_many", "kv.delete", "kv.transact", "kv.clear"}),
        (
            "all",
            {"kv.set", "kv.set_many", "kv.delete", "kv.transact", "kv.clear"} | {"kv.get", "kv.get_many", "kv.scan"},
        ),
    ],
)
async def test_writes_or_all_requests_are_recorded_where_that_is_configured(data: str, expected: set[str]) -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data=data)) as node:
        peer = peer_of()
        await ask(node, peer, *requests_of(peer))
    assert set(methods(fs)) == expected | {"audit.begun"}
    assert verified(fs).sound


async def test_a_line_says_who_did_what_and_how_it_ended() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all")) as node:
        peer = peer_of()
        await ask(node, peer, *requests_of(peer))
    told = {(line["method"], line.get("key")): line for line in lines(fs)}
    line = told["kv.set", "config/a"]
    assert line.pop("latency_us") >= 0
    for name in ("sequence", "time", "previous", "check"):
        del line[name]
    assert line == {
        "kind": "data",
        "connection": "ab" * 16,
        "address": "10.0.0.9:4444",
        "user": "ann",
        "mechanism": "SCRAM-SHA-256",
        "method": "kv.set",
        "key": "config/a",
        "outcome": "done",
        "code": 0,
    }
    assert told["kv.get", "missing"]["code"] == 4001
    assert told["kv.delete", "config/a"]["outcome"] == "not_applied"
    assert told["kv.set_many", "x"]["keys"] == 2
    assert told["kv.get_many", "x"]["keys"] == 3
    assert told["kv.transact", "t"]["keys"] == 2
    assert told["kv.scan", "config/"]["detail"] == {"bound": "prefix"}


async def test_no_value_is_in_the_log() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all", audit_slow=1e-9)) as node:
        peer = peer_of()
        await ask(node, peer, *requests_of(peer))
    assert {line["kind"] for line in lines(fs)} == {"log", "slow"}
    written = b"".join(fs.read(f"/data/audit/{name}") for name in fs.listdir("/data/audit"))
    assert len(written) > 1000
    for part in (VALUE, VALUE.hex().encode(), VALUE[5:15]):
        assert part not in written


async def test_hashed_keys_are_not_in_the_log() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all", audit_keys="hashed")) as node:
        peer = peer_of()
        await ask(node, peer, *requests_of(peer), peer.request("get", "config/a"))
    found = lines(fs)
    assert all("key" not in line for line in found)
    hashes = [line["key_hash"] for line in found if line["method"] == "kv.get"]
    assert len(hashes) == 3
    assert len(set(hashes)) == 2
    assert "config" not in str(found)


async def test_slow_requests_are_recorded_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_slow=1e-9)) as node:
        peer = peer_of()
        await ask(node, peer, peer.request("set", "a", VALUE), peer.request("get", "a"), peer.request("scan", {}))
    assert {(line["kind"], line["method"]) for line in lines(fs)[1:]} == {
        ("slow", "kv.set"),
        ("slow", "kv.get"),
        ("slow", "kv.scan"),
    }


async def test_a_slow_request_is_never_recorded_without_a_threshold() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_slow=0.0)) as node:
        peer = peer_of()
        await ask(node, peer, peer.request("set", "a", VALUE))
        assert "audit" not in fs.listdir("/data")


async def test_a_long_read_that_was_cancelled_or_failed_is_recorded_as_that() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all")) as node:
        peer = peer_of()
        scan, past = peer.request("scan", {}), peer.request("get", "a", {"at_revision": 99})
        scan.lost = False
        scan.cancelled = True
        await ask(node, peer, scan, past)
        service = KvService(node.commands, node.metrics, node.watches, AuditRecording(node.audit, node.config))
        assert service._replies.followed == {}
    told = {line["method"]: line for line in lines(fs)}
    assert (told["kv.scan"]["outcome"], told["kv.scan"]["code"]) == ("not_applied", int(Code.CANCELLED))
    assert told["kv.get"]["code"] == 4009


async def test_a_watch_is_recorded_when_it_is_opened() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all")) as node:
        peer = peer_of()
        service = KvService(node.commands, node.metrics, node.watches, AuditRecording(node.audit, node.config))
        watch = peer.request("watch", {"prefix": "jobs/"})
        service.handle([watch.request])
        await settled(node)
        watch.cancel()
        await turn()
    assert [(line["method"], line["key"]) for line in lines(fs)[1:]] == [("kv.watch", "jobs/")]


async def test_a_denial_is_recorded_once_with_its_key_and_permission() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all", audit_slow=1e-9)) as node:
        peer = peer_of()
        service = KvService(node.commands, node.metrics, node.watches, AuditRecording(node.audit, node.config))
        denied = failure(Code.PERMISSION_DENIED, {"permission": "write", "key": "secret/k"})
        request = peer.request("set", "secret/k", VALUE)
        assert service._recorded is not None
        service._recorded.answered([request.request], [_envelope()], [denied], 5.0)
        service._replies.answer([request.request], [denied])
        await settled(node)
    [line] = lines(fs)[1:]
    assert (line["kind"], line["method"], line["key"], line["code"]) == ("denied", "kv.set", "secret/k", 2004)
    assert line["detail"] == {"permission": "write"}
    assert line["user"] == "ann"


def _envelope() -> Any:
    from haptera.node.commands import Envelope
    from haptera.state.operations import Set

    return Envelope(Set("secret/k", VALUE))


# -- administration -------------------------------------------------------------------------------------------------


async def administer(node: Node, method: str, *argument: Any, peer: FakePeer | None = None) -> FakeRequest:
    request = (peer or peer_of("root")).request(method, *argument, service="server")
    ServerService(node).handle([request.request])
    while not request.answered:
        await turn()
    await settled(node)
    return request


@pytest.mark.parametrize(
    ("method", "argument", "target"),
    [("rotate_key", [{}], "data key"), ("rotate_key", [{"master": True}], "master key"), ("snapshot", [], None)],
)
async def test_administration_is_recorded_before_it_begins_and_before_its_answer(
    method: str, argument: list[Any], target: str | None
) -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        request = peer_of("root").request(method, *argument, service="server")
        on_the_disk: list[list[dict[str, Any]]] = []
        answer = request.respond

        def respond(payload: bytes = b"", entries: bytes = b"") -> None:
            on_the_disk.append(lines(fs.power_failure("drop"))[1:])
            answer(payload, entries)

        request.respond = respond  # type: ignore[method-assign]
        ServerService(node).handle([request.request])
        while not request.answered:
            await turn()
        [[begun, done]] = on_the_disk
    assert (begun["method"], begun["outcome"], begun.get("target")) == (f"server.{method}", "begun", target)
    assert (done["method"], done["outcome"], done["code"], done["user"]) == (f"server.{method}", "done", 0, "root")
    assert "latency_us" in done


async def test_administration_that_cannot_be_recorded_is_refused_and_not_done() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        before = node._storage.keyring.newest.id
        called = fs.called

        def no_audit(name: str, path: str) -> None:
            called(name, path)
            if "/audit" in path:
                raise OSError(errno.ENOSPC, "full", path)

        fs.called = no_audit  # type: ignore[method-assign]
        request = await administer_unsettled(node, "rotate_key", {})
        assert (request.code, request.failure and request.failure.outcome) == (5002, "not_applied")
        assert node._storage.keyring.newest.id == before
        state, reason, help_, since = health(node)
        assert (state, since is not None) == ("ok", True)
        assert "administration is refused" in reason
        assert help_
        fs.called = called  # type: ignore[method-assign]
        assert (await administer(node, "rotate_key", {})).failure is None
        assert node._storage.keyring.newest.id != before
        assert health(node)[1] == ""
    outcomes = [(line["outcome"], line["code"]) for line in lines(fs)[1:]]
    assert outcomes == [("begun", 0), ("not_applied", 5002), ("begun", 0), ("done", 0)]


async def administer_unsettled(node: Node, method: str, *argument: Any) -> FakeRequest:
    request = peer_of("root").request(method, *argument, service="server")
    ServerService(node).handle([request.request])
    while not request.answered:
        await turn()
    return request


async def test_administration_that_was_cancelled_meanwhile_is_not_done() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        before = node._storage.keyring.newest.id
        request = peer_of("root").request("rotate_key", {}, service="server")
        ServerService(node).handle([request.request])
        request.cancel()
        while not request.answered:
            await turn()
        assert request.code == int(Code.CANCELLED)
        assert node._storage.keyring.newest.id == before


async def test_administration_that_is_denied_when_it_is_judged_ends_with_that() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        recorded, denied = RecordedRequests(node.audit), failure(Code.PERMISSION_DENIED)
        late, early = (peer_of().request("grant", service="admin") for _ in range(2))
        recorded.begin(late.request, lambda: recorded.fail(late.request, denied))
        recorded.fail(early.request, denied)
        assert early.code == 2004
        while not late.answered:
            await turn()
        await settled(node)
    told = sorted((line["kind"], line["outcome"], line["code"]) for line in lines(fs)[1:])
    assert told == [
        ("administration", "begun", 0),
        ("administration", "not_applied", 2004),
        ("denied", "not_applied", 2004),
    ]


async def test_a_refused_argument_is_no_administration() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        assert (await administer(node, "rotate_key", {"mistress": True})).code == 3003
        assert (await administer(node, "backup", 1)).code == 3003
        assert "audit" not in fs.listdir("/data")


async def test_an_attempt_to_authenticate_is_recorded_with_the_name_that_was_given() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        peer = peer_of()
        peer.identity = None
        recorded = RecordedRequests(node.audit)
        recorded.ended(peer, "eve\n", "SCRAM-SHA-256", "the proof is wrong")  # type: ignore[arg-type]
        recorded.ended(peer, "ann", "PLAIN", None)  # type: ignore[arg-type]
        recorded.ended(peer, "eve", "", "it came too soon", Code.AUTHENTICATION_LOCKED)  # type: ignore[arg-type]
        await settled(node)
    failed, came_in, refused = lines(fs)[1:]
    assert (refused["user"], refused["outcome"], refused["code"]) == ("eve", "not_applied", 2003)
    assert (failed["kind"], failed["user"], failed["outcome"], failed["code"]) == (
        "authentication",
        "eve\n",
        "not_applied",
        2002,
    )
    assert failed["detail"] == {"reason": "the proof is wrong"}
    assert (came_in["user"], came_in["mechanism"], came_in["outcome"], came_in["code"]) == ("ann", "PLAIN", "done", 0)


async def test_a_connection_that_authenticates_is_named_by_its_user_from_then_on() -> None:
    fs = MemoryFileSystem()
    async with opened(fs, config=config(audit_data="all")) as node:
        peer = peer_of()
        peer.identity = None
        await ask(node, peer, peer.request("get", "a"))
        peer.identity = Identity("ann", "PLAIN")
        peer.submits_as(Submitter("ann"))
        await ask(node, peer, peer.request("get", "a"))
    assert [line.get("user") for line in lines(fs)[1:]] == [None, "ann"]


async def test_the_status_and_the_metrics_tell_of_the_log() -> None:
    fs = MemoryFileSystem()
    async with opened(fs) as node:
        await administer(node, "rotate_key", {})
        status = msgspec.msgpack.decode((await administer(node, "status")).payload_answered or b"")
        assert status["audit_head"] == str(node.audit.head) == str(verified(fs).head)
        values = node.metrics.values()
        assert (values["audit_lines_total"], values["audit_lost_total"], values["audit_waiting"]) == (2, 0, 0)
        assert values["audit_size_bytes"] == sum(
            len(fs.read(f"/data/audit/{name}")) for name in fs.listdir("/data/audit")
        )


def test_the_bounds_of_ranges_are_fields_of_commands() -> None:
    from haptera.state.operations import OpenScan

    assert set(command_events._BOUNDS) <= set(OpenScan.__struct_fields__)
