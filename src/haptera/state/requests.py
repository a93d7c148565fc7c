"""The ``requests`` part: changes are applied at most once (spec/protocol.md, section 7.1).

It remembers, for each (user, request id), the digest of the request and the result. All is decided when a command is
applied, in log order: so a retry that overtakes its original, a replay of the log and a replica all come to the same
answer.

Only results are remembered. A failure changed nothing, and a retry of it is judged again; but of a change that was sent
on several connections the failure is remembered too, because its other copy may arrive after the caller was told.

Answers age by a clock of this part. It advances with each entry by the time since the one before, and by at most
`limits.ANSWER_CLOCK_STEP_MS_MAX`: so a wall clock that jumps forward between a change and its retry does not expire the
answer. Previous values are the larger part of large answers, and have a budget: beyond it the user's oldest are
reduced to their version.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from haptera.errors import Code, Failure, failure
from haptera.key_rules import VERSION_MAX
from haptera.state import limits
from haptera.state.field_kinds import RequestId
from haptera.state.invariants import require
from haptera.state.results import Replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The rest of an answer that is too large to keep: the version of a change, the code of a failure.
_Brief = int | Failure
#: The time by the clock of this part, the digest, and the result.
_Answer = tuple[int, bytes | None, tuple[Any, ...] | _Brief]

_encoder: Final = msgspec.msgpack.Encoder()

_TRANSACT_FIELDS: Final = 3
#: The types of the fields of an entry: the last one of a key that expires, or of one that does not.
_ENTRY_TYPES: Final = ([bytes, int, int], [bytes, int, type(None)])


_Plain = bool | int | bytes | None
_Fields = tuple[_Plain | tuple[_Plain, ...], ...]
#: A result array as it is remembered, and as far as its decoder can tell (`_is_result`).
_Array = tuple[_Plain | tuple[_Plain | _Fields, ...], ...]


class Remembered(msgspec.Struct, array_like=True, forbid_unknown_fields=True, frozen=True, gc=False):
    """A remembered answer, in the form that a snapshot keeps. ``brief`` is the rest of a large one; None of others."""

    user: str
    request_id: RequestId
    time_ms: int
    digest: Annotated[bytes, Meta(min_length=32, max_length=32)] | None
    result: _Array | int | Failure
    brief: int | Failure | None


class Requests:
    """The remembered answers, oldest first: their clock never goes back, so expiry only looks at the front."""

    __slots__ = ("_answers", "_counts", "_large", "_sizes", "clock_ms", "size")

    def __init__(self) -> None:
        #: The time by which answers age.
        self.clock_ms = 0
        #: Bytes of all large answers.
        self.size = 0
        self._answers: OrderedDict[tuple[str, bytes], _Answer] = OrderedDict()
        self._counts: dict[str, int] = {}
        # Of each user: the large answers, oldest first, with their size and the rest that stays without it.
        self._large: dict[str, OrderedDict[bytes, tuple[int, _Brief]]] = {}
        self._sizes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def count(self, user: str) -> int:
        """How many answers of ``user`` are remembered."""
        return self._counts.get(user, 0)

    def remembers(self, user: str, request_id: bytes) -> bool:
        """Whether the answer of ``user`` to this request is remembered."""
        return (user, request_id) in self._answers

    def judge(self, user: str, request_id: bytes, digest: bytes | None) -> Replayed | Failure | None:
        """The answer to a command with this request id, without applying it; None if it is to be applied.

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
        self, user: str, request_id: bytes, digest: bytes | None, result: tuple[Any, ...] | Failure, version: int
    ) -> None:
        """Remember the result of a command that `judge` let through; of one too large to keep, the ``version``."""
        user = sys.intern(user)  # one text for all answers, also in a replay, where each command brings its own
        size = len(_encoder.encode(result))
        kept: tuple[Any, ...] | _Brief = result
        if size > limits.ANSWER_SMALL_SIZE:
            brief = _without_details(result) if isinstance(result, Failure) else version
            if size > limits.ANSWER_SIZE_MAX or not self._make_room(user, size):
                kept = brief
            else:
                self._large.setdefault(user, OrderedDict())[request_id] = (size, brief)
                self._charge(user, size)
        self._answers[user, request_id] = (self.clock_ms, digest, kept)
        self._counts[user] = self._counts.get(user, 0) + 1

    def forget(self, user: str, request_ids: Iterable[bytes]) -> int:
        """Forget the answers of ``user`` to these requests; how many there were."""
        forgotten = 0
        for request_id in request_ids:
            if self._answers.pop((user, request_id), None) is not None:
                self._forgot(user, request_id)
                forgotten += 1
        return forgotten

    def rows(self) -> Iterator[Remembered]:
        """The answers, oldest first. The table must not change meanwhile."""
        for (user, request_id), (time_ms, digest, result) in self._answers.items():
            large = self._large.get(user)
            charged = None if large is None else large.get(request_id)
            yield Remembered(user, request_id, time_ms, digest, result, None if charged is None else charged[1])

    def restore(self, row: Remembered) -> str | None:
        """Add an answer that comes after all others, as it was in another table; or say what is wrong with it."""
        user, request_id, result, brief = sys.intern(row.user), row.request_id, row.result, row.brief
        newest = self._answers[next(reversed(self._answers))][0] if self._answers else 0
        if not newest <= row.time_ms <= self.clock_ms:
            return "is out of its order"
        if (user, request_id) in self._answers or self.count(user) >= limits.ANSWERS_PER_USER_MAX:
            return "comes twice, or its user has too many"
        if isinstance(result, int) and not 0 <= result <= VERSION_MAX:
            return "is of no version"
        if isinstance(result, tuple) and not _is_result(result):
            return "has a result of no change"
        size = len(_encoder.encode(result))
        if brief is None:
            if size > limits.ANSWER_SMALL_SIZE and isinstance(result, tuple):
                return "is large and has no brief"
        else:
            if isinstance(result, int) or not limits.ANSWER_SMALL_SIZE < size <= limits.ANSWER_SIZE_MAX:
                return "has a brief and needs none"
            self._large.setdefault(user, OrderedDict())[request_id] = (size, brief)
            self._charge(user, size)
            if self.size > limits.ANSWERS_SIZE_MAX or self._sizes[user] > limits.ANSWERS_SIZE_PER_USER_MAX:
                return "is one of too many large ones"
        self._answers[user, request_id] = (row.time_ms, row.digest, result)
        self._counts[user] = self._counts.get(user, 0) + 1
        return None

    def advance(self, elapsed_ms: int) -> None:
        """Let time pass, and forget the answers that are older than `limits.ANSWER_KEPT_MS`."""
        self.clock_ms += min(elapsed_ms, limits.ANSWER_CLOCK_STEP_MS_MAX)
        oldest = self.clock_ms - limits.ANSWER_KEPT_MS
        answers = self._answers
        for _ in range(limits.ANSWERS_EXPIRED_MAX):
            if not answers:
                return
            key = next(iter(answers))
            if answers[key][0] >= oldest:
                return
            del answers[key]
            self._forgot(*key)

    def _make_room(self, user: str, size: int) -> bool:
        """Reduce the oldest large answers of ``user`` until one of ``size`` bytes fits; False if it never does."""
        while (
            self._sizes.get(user, 0) + size > limits.ANSWERS_SIZE_PER_USER_MAX
            or self.size + size > limits.ANSWERS_SIZE_MAX
        ):
            large = self._large.get(user)
            if not large:
                return False
            request_id = next(iter(large))
            _, brief = large[request_id]
            time_ms, digest, _ = self._answers[user, request_id]
            self._answers[user, request_id] = (time_ms, digest, brief)  # keeps its place: only its result is shorter
            self._discharge(user, request_id)
        return True

    def _charge(self, user: str, size: int) -> None:
        self.size += size
        self._sizes[user] = self._sizes.get(user, 0) + size

    def _discharge(self, user: str, request_id: bytes) -> None:
        large = self._large.get(user)
        found = None if large is None else large.pop(request_id, None)
        if large is None or found is None:
            return
        self.size -= found[0]
        self._sizes[user] -= found[0]
        if not large:
            del self._large[user], self._sizes[user]

    def _forgot(self, user: str, request_id: bytes) -> None:
        self._discharge(user, request_id)
        left = self._counts[user] - 1
        if left:
            self._counts[user] = left
        else:
            del self._counts[user]

    def digest(self) -> bytes:
        """32 bytes that are equal for equal tables, their order and clock included."""
        digest = hashlib.sha256(_encoder.encode(self.clock_ms))
        for key, answer in self._answers.items():
            digest.update(_encoder.encode((key, answer)))
        return digest.digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        before = 0
        for (user, request_id), (time_ms, _, result) in self._answers.items():
            counts[user] = counts.get(user, 0) + 1
            require(before <= time_ms <= self.clock_ms, "answers are in the order of their time")
            before = time_ms
            size = len(_encoder.encode(result))
            large = self._large.get(user)
            charged = None if large is None else large.get(request_id)
            if charged is not None:
                sizes[user] = sizes.get(user, 0) + size
                require(charged[0] == size, "large answers are charged with their size")
            else:
                brief = isinstance(result, int | Failure)
                require(brief or size <= limits.ANSWER_SMALL_SIZE, "all large answers are charged")
        require(counts == self._counts, "the answers of each user are counted")
        require(all(count <= limits.ANSWERS_PER_USER_MAX for count in counts.values()), "no user has too many answers")
        require(sizes == self._sizes and sum(sizes.values()) == self.size, "the large answers add up")
        require(self.size <= limits.ANSWERS_SIZE_MAX, "large answers fit their budget")
        require(all(size <= limits.ANSWERS_SIZE_PER_USER_MAX for size in sizes.values()), "each user's do, too")


def _is_result(result: tuple[Any, ...]) -> bool:
    """Whether an array can be a result: an entry, or numbers, flags and the previous entry of a key; or that of a
    transact, whose last field is a list of such arrays.
    """
    if _has_entries(result):
        return True
    if len(result) != _TRANSACT_FIELDS or type(result[0]) is not bool or type(result[-1]) is not tuple:
        return False
    return all(each is None or (type(each) is tuple and _has_entries(each)) for each in result[-1])


def _has_entries(fields: tuple[Any, ...]) -> bool:
    """Whether each array in an array is an entry."""
    return all(type(field) is not tuple or [type(part) for part in field] in _ENTRY_TYPES for field in fields)


def _without_details(reason: Failure) -> Failure:
    return failure(reason.code, outcome=reason.outcome)
