"""The remembered answers to the changes of each connection: their shares, and when they are forgotten.

The state remembers an answer, so that a repeated change is not applied again, and forgets it after ten minutes
(`state.requests`). A connection says earlier which answers it has read, with a change or with GOAWAY (spec/protocol.md,
2.3). So that it can, its share keeps the stream and the id of each answer that is remembered.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from haptera.errors import Code, Failure, failure
from haptera.node.answer_aging import crowded
from haptera.node.services.share_sizes import Share, share_of
from haptera.peer import link_of
from haptera.state import UNMET, Replayed, limits

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from haptera.node.commands import Commands, Envelope, Submitter
    from haptera.node.metrics import Metrics
    from haptera.peer import Peer, Request
    from haptera.state import Result

_logger = logging.getLogger(__name__)

#: Ids in all shares before the ids of expired answers are looked for, which takes a few milliseconds. After that as
#: many again must come, so that an id costs a constant; all shares together have at most twice as many ids as there are
#: remembered answers.
TRACKED_MIN = 65536

#: One line of the log in this time says that a user's answers are many, or that a connection's share is full.
WARN_EVERY_S = 60.0

#: The types of the results of changes that were all made.
_RESULTS = {tuple}

#: The name of a connection's share among its attributes.
_SHARE = "haptera.kv.answers"


class Answers:
    """Keeps the shares of all connections of a node."""

    def __init__(self, commands: Commands, metrics: Metrics) -> None:
        self._commands = commands
        self._metrics = metrics
        self._shares: set[Share] = set()  # one for each connection that has made a change
        self._tracked = 0
        # Of all users together: the commit pipeline takes no more than PENDING_COMMANDS_MAX.
        self._under_way = 0
        self._tracked_max = TRACKED_MIN
        self._warned_at = float("-inf")

    def admits(self, submitter: Submitter, peer: Peer, count: int) -> bool:
        """Whether a connection has room for ``count`` changes; they are then under way until they are settled. If it
        has no room, `admit` judges each.
        """
        share: Share | None = peer.attributes.get(_SHARE)
        if share is None:
            share = self._begin(submitter, peer)
        # The last of them is judged by this, when the others before it are under way.
        free = self._commands.room_for_answers(submitter) - self._under_way - count + 1
        if len(share.ids) + len(share.resent) + share.under_way + count > share_of(free):
            return False
        share.under_way += count
        self._under_way += count
        return True

    def admit(self, submitter: Submitter, peer: Peer, request_id: bytes) -> Failure | None:
        """Why a connection may not make this change now: its share is full, and the change is new. None if it may; the
        change is under way then, until it is settled.
        """
        if self.admits(submitter, peer, 1):
            return None
        share: Share = peer.attributes[_SHARE]
        self._drop_expired(share)
        if not self.admits(submitter, peer, 1):
            if request_id not in self._commands.remembers(submitter):
                return self._refuse(submitter, peer, share)
            share.under_way += 1
            self._under_way += 1
        return None

    def _refuse(self, submitter: Submitter, peer: Peer, share: Share) -> Failure:
        self._metrics.answers_refused_total += 1
        self._commands.aging.refused()
        share_max = share_of(self._commands.room_for_answers(submitter) - self._under_way)
        if self._may_warn():
            answers = len(share) + share.under_way
            _logger.warning(
                "connection_share_full", extra=link_of(peer).log_fields(answers=answers, answers_max=share_max)
            )
        details = {"remembered_requests_max": share_max, "share": "connection"}
        return failure(Code.RATE_LIMITED, details, outcome="not_applied")

    def settle(
        self,
        submitter: Submitter,
        peer: Peer,
        requests: Sequence[Request],
        commands: Sequence[Envelope],
        ids: Sequence[bytes | None],
        results: Sequence[Result],
    ) -> None:
        """Admitted changes of one connection have their results: the remembered ones belong to its share. ``ids`` are
        those of the requests.

        A repetition adds nothing, for any answer to it, because the first answer is in a share already, or left to time
        as the answers of a connection that has ended are.
        """
        share: Share | None = peer.attributes.get(_SHARE)
        if share is None:
            return  # none of them has a request id
        answers = self._commands.remembers(submitter)
        remembered: Container[bytes] = () if peer.closed else answers
        if (
            set(map(type, results)) == _RESULTS
            and all(map(remembered.__contains__, ids))
            and True not in [command.resent for command in commands]
        ):
            # Changes like most: each was made now, under an id, and on this connection alone.
            share.streams.extend([request.stream for request in requests])
            share.ids.extend(ids)  # type: ignore[arg-type]  # None is not remembered
            settled = added = len(ids)
        else:
            before = len(share)
            settled = self._settle_each(share, remembered, requests, commands, results)
            added = len(share) - before
        self._tracked += added
        share.under_way -= settled
        self._under_way -= settled
        if self._tracked > self._tracked_max:
            self._sweep()
        if crowded(len(answers)):
            self._look(submitter, len(answers))

    def _settle_each(
        self,
        share: Share,
        remembered: Container[bytes],
        requests: Sequence[Request],
        commands: Sequence[Envelope],
        results: Sequence[Result],
    ) -> int:
        """Add the remembered answers to a share; how many changes have an id."""
        settled = 0
        for request, command, result in zip(requests, commands, results, strict=True):
            request_id = command.request_id
            if request_id is None:
                continue
            settled += 1
            if type(result) is not tuple:
                if isinstance(result, Replayed):
                    continue
                assert isinstance(result, Failure)
                if result.code == Code.RATE_LIMITED:
                    self._metrics.answers_refused_total += 1
                if not (command.resent and result.code in UNMET):
                    continue
            if request_id in remembered:
                if command.resent:
                    share.resent.append(request_id)
                else:
                    share.streams.append(request.stream)
                    share.ids.append(request_id)
        return settled

    def _begin(self, submitter: Submitter, peer: Peer) -> Share:
        share = peer.attributes[_SHARE] = Share(submitter)
        self._shares.add(share)
        peer.on_close(lambda: self._leave(share))
        return share

    def read(self, peer: Peer, answered_below: int) -> None:
        """A connection has read the answers to its changes on streams below ``answered_below``: they are forgotten."""
        share: Share | None = peer.attributes.get(_SHARE)
        if share is None:
            return
        request_ids = share.take_below(answered_below)
        if request_ids:
            self._tracked -= len(request_ids)
            self._commands.forget(share.submitter, request_ids)

    def _look(self, submitter: Submitter, count: int) -> None:
        """A user has many remembered answers: see to it that they age, and warn before there are too many."""
        self._commands.aging.look()
        if self._may_warn():
            fields = {"user": submitter.user, "answers": count, "answers_max": limits.ANSWERS_PER_USER_MAX}
            _logger.warning("remembered_answers_many", extra=fields)

    def _may_warn(self) -> bool:
        now = time.monotonic()
        if now - self._warned_at < WARN_EVERY_S:
            return False
        self._warned_at = now
        return True

    def _leave(self, share: Share) -> None:
        """The connection has ended. Time forgets the answers that it has not named as read."""
        self._tracked -= len(share)
        self._shares.discard(share)

    def _drop_expired(self, share: Share) -> None:
        before = len(share)
        share.drop_forgotten(self._commands.remembers(share.submitter))
        self._tracked -= before - len(share)

    def _sweep(self) -> None:
        for share in self._shares:
            self._drop_expired(share)
        self._tracked_max = max(TRACKED_MIN, 2 * self._tracked)
