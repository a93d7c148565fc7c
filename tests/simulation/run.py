"""One simulated run: a node, its clients and what happens to them, all chosen by a seed."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack, nullcontext
from typing import TYPE_CHECKING, Final

import haptera
from haptera.node.audit.found_files import AUDIT_DIRECTORY
from haptera.node.config import NodeConfig
from haptera.node.offline.audit import verify_audit
from haptera.node.offline.pitr import Timeline
from haptera.node.offline.verify import verify
from haptera.testing import run
from tests.simulation.answers import Answers
from tests.simulation.backups import check_archive, digest_of
from tests.simulation.claims import Shared
from tests.simulation.clients import CALLERS, COUNTER, Caller
from tests.simulation.holders import Holder
from tests.simulation.keys import MasterKeys
from tests.simulation.leases import LeaseReplay
from tests.simulation.narrow import narrow
from tests.simulation.node import SimulatedNode
from tests.simulation.past import Past
from tests.simulation.promises import PromiseBroken, require
from tests.simulation.transcript import Transcript
from tests.simulation.watchers import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from haptera.testing import Network

CLIENTS_MAX: Final = 3
WATCHERS: Final = 2
HOLDERS: Final = 2
CALLS: Final = 12
HELD_CALLS: Final = 10
FAULTS: Final = 6
#: The longest time between two faults: as long as some calls take, or as some leases last.
FAULT_EVERY_S: Final = (0.03, 0.03, 1.0)
FREEZES_S: Final = (0.001, 0.02, 1.0, 45.0)
#: How many runs have narrow windows and a short history.
NARROW_CHANCE: Final = 0.3
LATENCIES_S: Final = (0.0001, 0.001, 0.02)
#: Late bytes and repetitions have arrived by then.
QUIET_S: Final = 120.0

DATA_DIR: Final = "/data"

#: Faults of the network, and faults of the node's machine.
NETWORK: Final = ("cut", "freeze", "slow")
MACHINE: Final = (
    "clock",
    "restart",
    "kill",
    "lose_power",
    "break_disk",
    "fill_disk",
    "slow_disk",
    "snapshot",
    "rotate_data_key",
    "rotate_master_key",
    "backup",
    "lose_archive",
)


class Faults:
    """Does to a network and a node what a seed chooses."""

    def __init__(self, node: SimulatedNode, network: Network, choices: random.Random, transcript: Transcript) -> None:
        self._node = node
        self._network = network
        self._choices = choices
        self._transcript = transcript

    async def go_on(self) -> None:
        """Make one fault after the other. Each ends by itself."""
        kinds = (*NETWORK, *MACHINE)
        # Each run has its own mixture, because faults of all kinds together leave little time for the effects of one.
        weights = [self._choices.choice((0, 0, 1, 4)) for _ in kinds]
        weights[self._choices.randrange(len(kinds))] += 4
        longest = self._choices.choice(FAULT_EVERY_S)
        for _ in range(FAULTS):
            await asyncio.sleep(self._choices.uniform(0.0, longest))
            kind = self._choices.choices(kinds, weights)[0]
            await (getattr(self, f"_{kind}") if kind in NETWORK else getattr(self._node, kind))()

    async def _cut(self) -> None:
        self._tell("is cut")
        self._network.sever()

    async def _freeze(self) -> None:
        direction = self._choices.choice((self._network.to_acceptor, self._network.to_dialer))
        seconds = self._choices.uniform(0.0, self._choices.choice(FREEZES_S))
        self._tell(f"delivers nothing {direction.name.replace('_', ' ')} for {seconds:.6f} s")
        direction.pause()
        await asyncio.sleep(seconds)
        direction.resume()

    async def _slow(self) -> None:
        longest = self._choices.choice(LATENCIES_S)
        self._tell(f"takes up to {longest} s")
        self._network.delay(lambda: self._choices.uniform(0.0, longest))

    def _tell(self, text: str) -> None:
        self._transcript.add("network", text)


def simulate(seed: int, transcript: Transcript | None = None, *, leaves_gaps: bool = False) -> Transcript:
    """Run a node and its clients under faults, all chosen by ``seed``.

    With ``leaves_gaps`` the node leaves a gap in its revisions whenever it was killed. Raises `PromiseBroken` where an
    answer, or the state at the end, is one that the promises rule out. The error names the command that shows the run.
    """
    transcript = Transcript() if transcript is None else transcript
    choices = random.Random(seed)
    try:
        has_little_room = choices.random() < NARROW_CHANCE
        with narrow(choices) if has_little_room else nullcontext():
            keeps_all = not (has_little_room or leaves_gaps)
            run(_run(choices, transcript, keeps_all=keeps_all, leaves_gaps=leaves_gaps), seed=seed)
    except BaseException as error:
        error.add_note(f"the whole run: python -m tests.simulation {seed}{' gaps' * leaves_gaps}")
        raise
    return transcript


async def _run(choices: random.Random, transcript: Transcript, *, keeps_all: bool, leaves_gaps: bool) -> None:
    network: Network = asyncio.get_running_loop().network  # type: ignore[attr-defined]
    async with AsyncExitStack() as stack:
        keys, archives = stack.enter_context(MasterKeys()), choices.choice((True, False))
        node = SimulatedNode(
            choices,
            keys,
            archives=archives,
            leaves_gaps=leaves_gaps,
            told=lambda text: transcript.add("node", text),
        )
        stack.push_async_callback(node.stop)
        await node.start()
        network.delay(lambda: choices.uniform(0.0, LATENCIES_S[1]))
        dbs = [
            await stack.enter_async_context(haptera.connect(node.url)) for _ in range(choices.randint(1, CLIENTS_MAX))
        ]
        shared, answers = Shared(lambda: node.clock_was_set), Answers(lambda: node.revision)
        callers = [
            Caller(number, dbs[number % len(dbs)], answers, choices, transcript, shared)
            for number in range(1, CALLERS + 1)
        ]
        holders = [
            Holder(number, choices.choice(dbs), answers, choices, transcript) for number in range(1, HOLDERS + 1)
        ]
        watchers = [
            Watcher(number, choices.choice(dbs), choices, transcript, network.sever)
            for number in range(1, WATCHERS + 1)
        ]
        async with asyncio.TaskGroup() as watching:
            following = [watching.create_task(watcher.follow()) for watcher in watchers]
            async with asyncio.TaskGroup() as group:
                group.create_task(Faults(node, network, choices, transcript).go_on())
                for caller in callers:
                    group.create_task(caller.calls(CALLS))
                for holder in holders:
                    group.create_task(holder.calls(HELD_CALLS))
            network.delay(0.0)
            for watcher in watchers:
                watcher.hurry()
            await asyncio.sleep(QUIET_S / 2)
            told_until = node.revision
            await asyncio.sleep(QUIET_S / 2)
            for task in following:
                task.cancel()
        await _check(node, callers, shared)
        past = await _check_what_is_kept(node, callers, shared, transcript)
        answers.check(past)
        keeps_all = keeps_all and past.begin == 0
        require(not (keeps_all and answers.compacted), "a read was refused although all changes are kept")
        for watcher in watchers:
            watcher.check(past, told_until, keeps_all=keeps_all)
        ends = [end for watcher in watchers for end in watcher.ends]
        for holder in holders if past.begin == 0 else ():
            LeaseReplay(holder).check(past, ends)


async def _check(node: SimulatedNode, callers: Sequence[Caller], shared: Shared) -> None:
    """Hold the store against the callers' records."""
    async with haptera.connect(node.url) as observer:
        for caller in callers:
            await caller.check(observer)
        entry = await observer.get(COUNTER)
        shared.counter_is(0 if entry is None else int(entry.value))
        leases = [lease async for lease in observer.leases()]
        require(not leases, f"these leases have not ended: {leases}")


async def _check_what_is_kept(
    node: SimulatedNode, callers: Sequence[Caller], shared: Shared, transcript: Transcript
) -> Past:
    """Hold every byte of the disk, the state that a start would come to, and the states that history gives back,
    against the state in memory; and that one against the records once more, after a start. Returns the past.
    """
    machine = node.running.node._machine
    machine.check()
    digest = machine.digest()
    disk = node.disk.power_failure("drop")
    found = verify(disk, NodeConfig(data_dir=DATA_DIR, master_key_file=node.keys.path), node.keys.unlock)
    if not found.sound:
        raise PromiseBroken(f"the disk is damaged: {found.start.error or found.check.findings.damaged}")
    if found.start.digest != digest:
        raise PromiseBroken("the disk has another state than the node")
    if AUDIT_DIRECTORY in disk.listdir(DATA_DIR) and (faults := verify_audit(disk, DATA_DIR).faults):
        raise PromiseBroken(f"the chain of the audit log is broken: {faults[0]}")
    transcript.add("node", f"has the state {digest.hex()[:16]}, and so has its disk")
    timeline = Timeline(disk, DATA_DIR, node.keys.unlock)
    _look_back(timeline, node.noted, transcript)
    _check_backups(node, timeline, transcript)
    _check_archive(node, transcript)
    at_the_end = machine.revision
    past = Past.of(timeline.at_revision(at_the_end).machine)
    await node.restart()
    await _check(node, callers, shared)
    if node.archives:
        await asyncio.sleep(QUIET_S)
        _check_archive(node, transcript)
        _check_backup_with_archive(node, at_the_end, transcript)
    return past


def _check_backups(node: SimulatedNode, timeline: Timeline, transcript: Transcript) -> None:
    """Restore the first backup and the last, and hold their states against that of history at their revision."""
    (reach,) = timeline.reach()
    for taken in dict.fromkeys((*node.backups[:1], *node.backups[-1:])):
        revision, digest = digest_of(taken, node.keys.all)
        if revision != taken.revision:
            raise PromiseBroken(f"a backup of revision {taken.revision} was restored to {revision}")
        expected = node.noted.get(revision)
        if expected is None and reach.first_revision <= revision:
            expected = timeline.at_revision(revision).machine.kv.digest()
        if expected not in {None, digest}:
            raise PromiseBroken(f"a backup has another state of revision {revision}")
        transcript.add("node", f"is restored at revision {revision} by a backup")


def _check_archive(node: SimulatedNode, transcript: Transcript) -> None:
    """Hold the archive, if there is one, against the log."""
    if node.archives:
        newest = node.newest_segment
        check_archive(node.disk, newest)
        transcript.add("node", f"has all segments before {newest} in its archive")


def _check_backup_with_archive(node: SimulatedNode, least: int, transcript: Transcript) -> None:
    """Restore a backup with the archive behind it, which is under later master keys where that was changed.

    It reaches the revision ``least`` at least. It may reach a later one, because a start ends keys if the clock was set
    forward.
    """
    if node.backups:
        revision, digest = digest_of(node.backups[0], node.keys.all, node.disk)
        timeline = Timeline(node.disk.power_failure("drop"), DATA_DIR, node.keys.unlock)
        if revision < least or timeline.at_revision(revision).machine.kv.digest() != digest:
            raise PromiseBroken("a backup and the archive behind it have another state than the node")
        transcript.add("node", f"is restored at revision {revision} by a backup and the archive behind it")


def _look_back(timeline: Timeline, noted: dict[int, bytes], transcript: Transcript) -> None:
    """Hold the states of the past that are kept against their digests of then."""
    (reach,) = timeline.reach()
    for revision, digest in noted.items():
        kept = reach.first_revision <= revision
        if kept and timeline.at_revision(revision).machine.kv.digest() != digest:
            raise PromiseBroken(f"history gives another state of revision {revision}")
        transcript.add("node", f"{'still has' if kept else 'has no longer'} the state of revision {revision}")
