"""Watchers of a simulated node: each follows some keys under all faults, and is held against the past at the end.

A watcher begins in any of the ways that there are, is slow or stands still for longer than a watch may, and leaves its
watch at times to go on with another one from where it was.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from haptera.errors import HapteraError, RevisionCompacted
from tests.simulation.promises import require

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from haptera import Database, Event, Watch
    from tests.simulation.past import Change, Past
    from tests.simulation.transcript import Transcript

#: The keys of a watch: all, those of some kinds of calls, and single ones.
CHOSEN: Final[tuple[dict[str, Any], ...]] = (
    {},
    {},
    {"prefix": "own/"},
    {"prefix": "pair/"},
    {"prefix": "session/"},
    {"prefix": "held/"},
    {"key": "count"},
    {"key": "own/1/0"},
)
#: Seconds that a watcher takes for each event.
PACES_S: Final = (0.0, 0.0, 0.001, 0.02)
#: Longer than a watch that takes nothing may last.
STANDSTILL_S: Final = 70.0
TIMEOUT_S: Final = 30.0
#: The wait behind a watch that was refused.
AGAIN_S: Final = 0.05

#: An event as it is told: revision, kind, key, value, time of expiry, and value and version of before.
Told = tuple[int, str, str, bytes | None, int | None, tuple[bytes, int] | None]


@dataclass
class Session:
    """A watch from its beginning to its end: the revision that it has ``begun`` behind, everything that it was told,
    and the revision up to which it has ``seen`` all.
    """

    keys: dict[str, Any]
    previous: bool
    initial: bool = False
    begun: int | None = None
    seen: int = 0
    present: list[tuple[str, bytes | None, int]] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    #: Of each key that has ended: when that was told, the key, and the revision.
    ends: list[tuple[float, str, int]] = field(default_factory=list)
    compacted: bool = False

    def chosen(self, key: str) -> bool:
        """Whether it is a watch of this key."""
        return key == self.keys.get("key", key) and key.startswith(self.keys.get("prefix", ""))

    def take(self, event: Event) -> None:
        """Note an event."""
        if event.kind == "present":
            self.present.append((event.key, event.value, event.version))
        elif event.kind == "synced":
            self.begun = event.version
        else:
            before = None if event.previous is None else (bytes(event.previous.value), event.previous.version)
            expires_at_ms = None if event.expires_at is None else round(event.expires_at * 1000)
            if event.kind == "expire":
                self.ends.append((asyncio.get_running_loop().time(), event.key, event.version))
            self.events.append((event.version, event.kind, event.key, event.value, expires_at_ms, before))

    def check(self, past: Past, until: int) -> None:
        """Hold it against the past: every change once, in order, and none left out. ``until`` is a revision that it
        must have come to. Raises PromiseBroken.
        """
        if self.begun is None:
            require(not self.events, f"the watch {self} has events before it has begun")
            return
        begun = max(self.begun, past.begin)
        events = [event for event in self.events if event[0] > begun]
        wanted = [self._told(change) for change in past.changes(self.chosen, begun)]
        for given, right in zip(events, wanted, strict=False):
            require(given == right, f"a watch of {self.keys} behind {self.begun} was told {given}, and not {right}")
        require(len(events) <= len(wanted), f"a watch of {self.keys} was told of more: {events[len(wanted) :][:1]}")
        reached = max(self.seen, until)
        missed = [change for change in wanted[len(events) :] if change[0] <= reached]
        require(not missed, f"a watch of {self.keys} that has come to {reached} was not told {missed[:1]}")
        if self.initial and self.begun >= past.begin:
            self._check_present(past.entries(self.chosen, self.begun))

    def _check_present(self, entries: dict[str, Any]) -> None:
        """The entries of the beginning are in the order of the keys; a key whose time was over may be left out."""
        keys = [key for key, _, _ in self.present]
        require(keys == sorted(keys), f"a watch began with {keys}")
        for key, value, version in self.present:
            require(entries.get(key, ())[:2] == (value, version), f"a watch began with {key} = {value!r} at {version}")
        left_out = [key for key, entry in entries.items() if entry[2] is None and key not in keys]
        require(not left_out, f"a watch began without {left_out}")

    def _told(self, change: Change) -> Told:
        value, _, expires_at_ms = change.entry or (None, 0, None)
        before = change.previous[:2] if change.previous is not None and self.previous else None
        return change.revision, change.kind, change.key, value, expires_at_ms, before


class Watcher:
    """Follows some keys for the whole run, by one watch after the other. ``cut`` cuts all connections, which it may do
    once, in the middle of a revision.
    """

    def __init__(
        self, number: int, db: Database, choices: random.Random, transcript: Transcript, cut: Callable[[], None]
    ) -> None:
        self.name = f"watcher {number}"
        self._db = db
        self._choices = choices
        self._transcript = transcript
        self._pace = choices.choice(PACES_S)
        self._stands_still = choices.random() < 0.2
        self._cut = cut
        self._may_cut = choices.random() < 0.5
        self._hurries = False
        self._sessions: list[Session] = []

    @property
    def ends(self) -> list[tuple[float, str, int]]:
        """Of each key that has ended: when it was told that, the key, and the revision."""
        return [end for session in self._sessions for end in session.ends]

    def hurry(self) -> None:
        """Take all events at once from now on, and stay with the watch that there is."""
        self._hurries = True

    async def follow(self) -> None:
        """Watch until this is cancelled."""
        keys = self._choices.choice(CHOSEN)
        previous = self._choices.random() < 0.5
        goes_on_behind: int | None = None
        while True:
            session = Session(keys, previous)
            self._sessions.append(session)
            try:
                await self._watch(session, goes_on_behind)
                goes_on_behind = session.seen
            except RevisionCompacted:
                self._tell("cannot go on, because the changes are not kept")
                session.compacted, goes_on_behind = True, None
                await asyncio.sleep(AGAIN_S)
            except HapteraError as error:
                require(session.begun is None, f"a watch that had begun ended with {error!r}")
                self._tell(f"cannot begin: {type(error).__name__}")
                await asyncio.sleep(AGAIN_S)

    async def _watch(self, session: Session, behind: int | None) -> None:
        options = self._beginning(behind)
        self._tell(f"watches {session.keys} {options}")
        session.initial = "initial" in options
        options |= {"progress_interval": self._choices.choice((None, 1.0, 20.0)), "timeout": TIMEOUT_S}
        watch = self._db.watch(**session.keys, previous=session.previous, **options)
        try:
            async with watch:
                if not session.initial:
                    session.begun, first = watch.revision or 0, options.get("start_revision")
                    require(first in {None, session.begun + 1}, f"a watch from {first} on began behind {session.begun}")
                await self._read(session, watch)
        finally:
            session.seen = max(session.seen, session.begun or 0)

    def _beginning(self, behind: int | None) -> dict[str, Any]:
        if behind is not None:
            return {"start_revision": behind + 1}
        return self._choices.choice(({"initial": True}, {"start_revision": 1}, {}))

    async def _read(self, session: Session, watch: Watch) -> None:
        left = self._choices.choice((5, 20, 1000))
        async for event in watch:
            session.take(event)
            if not watch.ready:
                session.seen = watch.revision or 0
            left -= 1
            if self._may_cut and not watch.ready and event.version > session.seen and session.begun is not None:
                self._may_cut = False
                self._tell(f"is cut off in the middle of revision {event.version}")
                self._cut()
            if self._hurries:
                continue
            if left <= 0 and session.begun is not None and not watch.ready:
                self._tell(f"leaves its watch at revision {session.seen}")
                return
            await self._rest()

    async def _rest(self) -> None:
        if self._stands_still and self._choices.random() < 0.1:
            self._stands_still = False
            self._tell(f"takes nothing for {STANDSTILL_S} s")
            await asyncio.sleep(STANDSTILL_S)
        elif self._pace:
            await asyncio.sleep(self._choices.uniform(0.0, self._pace))

    def check(self, past: Past, until: int, *, keeps_all: bool) -> None:
        """Hold all watches against the past. The last one must have come to ``until``. Raises PromiseBroken.

        ``keeps_all`` says that the node has kept all changes.
        """
        for session in self._sessions:
            require(not (keeps_all and session.compacted), "a watch was refused although all changes are kept")
            session.check(past, until if session is self._sessions[-1] else 0)
        told = sum(len(session.events) for session in self._sessions)
        self._tell(f"was told of {told} changes by {len(self._sessions)} watches")

    def _tell(self, text: str) -> None:
        self._transcript.add(self.name, text)
