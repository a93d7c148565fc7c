"""The ``requests`` part: changes are applied at most once (spec/protocol.md, section 7.1).

It remembers, for each (user, request id), the digest of what was asked and the result. All is decided when a command is
applied, in log order, and by the time of its entry: so a retry that overtakes its original, a replay of the log and a
replica all come to the same answer.

Only results are remembered. A failure changed nothing, and a retry of it is judged again.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from haptera.error_codes import Code
from haptera.errors import Failure, failure
from haptera.state import limits
from haptera.state.results import Replayed

#: The entry time, the digest, and the result; of one too large to keep, the version alone.
_Answer = tuple[int, bytes | None, tuple[Any, ...] | int]

_encoder: Final = msgspec.msgpack.Encoder()


class Requests:
    """The remembered answers, oldest first: entry time never goes back, so expiry only looks at the front."""

    __slots__ = ("_answers", "_counts")

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, bytes], _Answer] = OrderedDict()
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def count(self, user: str) -> int:
        """How many answers of ``user`` are remembered."""
        return self._counts.get(user, 0)

    def judge(self, user: str, request_id: bytes, digest: bytes | None) -> Replayed | Failure | None:
        """What a command with this request id is answered without being applied; None if it is to be applied.

        `Replayed` for one that was applied; 3011 if its answer was too large to keep; 3012 if the id stood for another
        request; 3008 for a new one while the user's table is full.
        """
        answer = self._answers.get((user, request_id))
        if answer is None:
            if self._counts.get(user, 0) < limits.ANSWERS_PER_USER_MAX:
                return None
            details = {"remembered_requests_max": limits.ANSWERS_PER_USER_MAX}
            return failure(Code.RATE_LIMITED, details, outcome="not_applied")
        _, known_digest, result = answer
        if digest != known_digest:
            return failure(Code.REQUEST_ID_REUSED, outcome="not_applied")
        if isinstance(result, int):
            return failure(Code.ANSWER_NOT_KEPT, {"version": result}, outcome="applied")
        return Replayed(result)

    def remember(
        self, user: str, request_id: bytes, digest: bytes | None, time_ms: int, result: tuple[Any, ...], version: int
    ) -> None:
        """Remember the result of a command that `judge` let through; of one too large to keep, the ``version``."""
        user = sys.intern(user)  # one text for all answers, also in a replay, where each command brings its own
        kept = len(_encoder.encode(result)) <= limits.ANSWER_SIZE_MAX
        self._answers[user, request_id] = (time_ms, digest, result if kept else version)
        self._counts[user] = self._counts.get(user, 0) + 1

    def forget(self, user: str, request_ids: Iterable[bytes]) -> int:
        """Forget the answers of ``user`` to these requests; how many there were."""
        forgotten = 0
        for request_id in request_ids:
            if self._answers.pop((user, request_id), None) is not None:
                self._uncount(user)
                forgotten += 1
        return forgotten

    def expire(self, time_ms: int) -> None:
        """Forget the answers that are older than `limits.ANSWER_KEPT_MS` at ``time_ms``."""
        answers = self._answers
        while answers:
            key = next(iter(answers))
            if time_ms - answers[key][0] <= limits.ANSWER_KEPT_MS:
                return
            del answers[key]
            self._uncount(key[0])

    def _uncount(self, user: str) -> None:
        left = self._counts[user] - 1
        if left:
            self._counts[user] = left
        else:
            del self._counts[user]

    def digest(self) -> bytes:
        """32 bytes that are equal for equal tables, their order included."""
        digest = hashlib.sha256()
        for key, answer in self._answers.items():
            digest.update(_encoder.encode((key, answer)))
        return digest.digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        counts: dict[str, int] = {}
        before = 0
        for (user, _), (time_ms, _, _) in self._answers.items():
            counts[user] = counts.get(user, 0) + 1
            if time_ms < before:
                raise AssertionError("broken invariant: answers are in the order of their time")
            before = time_ms
        if counts != self._counts:
            raise AssertionError("broken invariant: the answers of each user are counted")
        if any(count > limits.ANSWERS_PER_USER_MAX for count in counts.values()):
            raise AssertionError("broken invariant: no user has more answers than allowed")
