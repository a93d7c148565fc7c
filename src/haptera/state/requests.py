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

The answers of a user are a dict. It grows in a single step, 4 ms with the 100,000 that it may have at most. The answers
of all users have no dict: their order, by which they age, grows in small steps (`haptera.state.ranked_blocks`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from msgspec import Meta

from haptera.errors import Code, Failure, failure
from haptera.key_rules import VERSION_MAX
from haptera.state import limits
from haptera.state.field_kinds import RequestId
from haptera.state.invariants import require
from haptera.state.ranked_blocks import RankedBlocks
from haptera.state.results import Replayed

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The rest of an answer that is too large to keep: the version of a change, the code of a failure.
_Brief = int | Failure
#: The rank among all answers, the digest, the result, and of a large one its rank among the user's.
_Answer = tuple[int, bytes | None, tuple[Any, ...] | _Brief, int | None]

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


class _User:
    """The answers of one user."""

    __slots__ = ("answers", "large", "large_size", "name")

    def __init__(self, name: str) -> None:
        #: One text for all answers, also in a replay, where each command brings its own.
        self.name = name
        #: By request id.
        self.answers: dict[bytes, _Answer] = {}
        #: The large answers, oldest first: the request id, the size, and the rest that stays without it. None where
        #: there never was one: a user begins and ends with its answers, often with each of them.
        self.large: RankedBlocks[tuple[bytes, int, _Brief]] | None = None
        #: Bytes of the large answers.
        self.large_size = 0


class Requests:
    """The remembered answers, oldest first: their clock never goes back, so expiry only looks at the oldest."""

    __slots__ = ("_oldest_ms", "_order", "_restored_ms", "_users", "clock_ms", "size")

    def __init__(self) -> None:
        #: The time by which answers age.
        self.clock_ms: int = 0
        #: Bytes of all large answers.
        self.size: int = 0
        # Of each answer, oldest first: the user, the request id, and the time by the clock of this part.
        self._order: RankedBlocks[tuple[str, bytes, int]] = RankedBlocks()
        # The users that have answers.
        self._users: dict[str, _User] = {}
        # No answer is older than this time, so that an entry looks at the oldest one only when it may expire.
        self._oldest_ms = 0
        # The time of the answer that was restored last.
        self._restored_ms = 0

    def __len__(self) -> int:
        return sum(len(owner.answers) for owner in self._users.values())

    def count(self, user: str) -> int:
        """How many answers of ``user`` are remembered."""
        owner = self._users.get(user)
        return 0 if owner is None else len(owner.answers)

    @property
    def most(self) -> int:
        """The number of answers that are remembered for the user who has most of them."""
        return max((len(owner.answers) for owner in self._users.values()), default=0)

    def remembered(self, user: str) -> Collection[bytes]:
        """The ids of the requests of ``user`` whose answers are remembered now. To be asked before the next entry."""
        owner = self._users.get(user)
        return () if owner is None else owner.answers

    def remembers(self, user: str, request_id: bytes) -> bool:
        """Whether the answer of ``user`` to this request is remembered."""
        return request_id in self.remembered(user)

    def judge(self, user: str, request_id: bytes, digest: bytes | None) -> Replayed | Failure | None:
        """The answer to a command with this request id, without applying it; None if it is to be applied.

        `Replayed` for one that was applied; 3011 if its answer was too large to keep; 3012 if the id stood for another
        request; 3008 for a new one while the user's table is full.
        """
        owner = self._users.get(user)
        if owner is None:
            return None
        answer = owner.answers.get(request_id)
        if answer is None:
            if len(owner.answers) < limits.ANSWERS_PER_USER_MAX:
                return None
            details = {"remembered_requests_max": limits.ANSWERS_PER_USER_MAX}
            return failure(Code.RATE_LIMITED, details, outcome="not_applied")
        _, known_digest, result, _ = answer
        if digest != known_digest:
            return failure(Code.REQUEST_ID_REUSED, outcome="not_applied")
        if isinstance(result, int):
            return failure(Code.ANSWER_NOT_KEPT, {"version": result}, outcome="applied")
        return Replayed(result)

    def remember(
        self, user: str, request_id: bytes, digest: bytes | None, result: tuple[Any, ...] | Failure, version: int
    ) -> None:
        """Remember the result of a command that `judge` let through; of one too large to keep, the ``version``."""
        owner = self._users.get(user) or self._begin(user)
        kept: tuple[Any, ...] | _Brief = result
        charge = None
        # Numbers and flags alone are small. Of other results the first field has bytes, or the last is an array.
        if type(result) is not tuple or type(result[-1]) is tuple or type(result[0]) is bytes:
            size = len(_encoder.encode(result))
            if size > limits.ANSWER_SMALL_SIZE:
                brief = _without_details(result) if isinstance(result, Failure) else version
                if size > limits.ANSWER_SIZE_MAX or not self._make_room(owner, size):
                    kept = brief
                else:
                    charge = self._charge(owner, request_id, size, brief)
        rank = self._order.add((owner.name, request_id, self.clock_ms))
        owner.answers[request_id] = (rank, digest, kept, charge)

    def forget(self, user: str, request_ids: Iterable[bytes]) -> int:
        """Forget the answers of ``user`` to these requests; how many there were."""
        owner = self._users.get(user)
        return 0 if owner is None else self._take_out(owner, request_ids)

    def rows(self) -> Iterator[Remembered]:
        """The answers, oldest first. The table must not change meanwhile."""
        for user, request_id, time_ms, answer in self._all():
            _, digest, result, charge = answer
            charged = self._charged(user, charge)
            yield Remembered(user, request_id, time_ms, digest, result, None if charged is None else charged[2])

    def restore(self, row: Remembered) -> str | None:
        """Add an answer that comes after all others, as it was in another table; or say what is wrong with it."""
        request_id, result, brief = row.request_id, row.result, row.brief
        if not self._restored_ms <= row.time_ms <= self.clock_ms:
            return "is out of its order"
        if self.remembers(row.user, request_id) or self.count(row.user) >= limits.ANSWERS_PER_USER_MAX:
            return "comes twice, or its user has too many"
        if isinstance(result, int) and not 0 <= result <= VERSION_MAX:
            return "is of no version"
        if isinstance(result, tuple) and not _is_result(result):
            return "has a result of no change"
        size = len(_encoder.encode(result))
        owner = self._users.get(row.user) or self._begin(row.user)
        charge = None
        if brief is None:
            if size > limits.ANSWER_SMALL_SIZE and isinstance(result, tuple):
                return "is large and has no brief"
        else:
            if isinstance(result, int) or not limits.ANSWER_SMALL_SIZE < size <= limits.ANSWER_SIZE_MAX:
                return "has a brief and needs none"
            charge = self._charge(owner, request_id, size, brief)
            if self.size > limits.ANSWERS_SIZE_MAX or owner.large_size > limits.ANSWERS_SIZE_PER_USER_MAX:
                return "is one of too many large ones"
        self._restored_ms = row.time_ms
        rank = self._order.add((owner.name, request_id, row.time_ms))
        owner.answers[request_id] = (rank, row.digest, result, charge)
        return None

    def advance(self, elapsed_ms: int) -> None:
        """Let time pass, and forget the answers that are older than `limits.ANSWER_KEPT_MS`."""
        self.clock_ms += min(elapsed_ms, limits.ANSWER_CLOCK_STEP_MS_MAX)
        kept_from = self.clock_ms - limits.ANSWER_KEPT_MS
        if self._oldest_ms >= kept_from:
            return
        expired: list[tuple[str, bytes, int]] = []
        for found in self._order.values():
            self._oldest_ms = found[2]
            if self._oldest_ms >= kept_from or len(expired) == limits.ANSWERS_EXPIRED_MAX:
                break
            expired.append(found)
        else:
            self._oldest_ms = self.clock_ms
        for user, request_id, _ in expired:
            self._take_out(self._users[user], (request_id,))

    def _take_out(self, owner: _User, request_ids: Iterable[bytes]) -> int:
        """Take out the answers of a user to some requests, as far as there are any; how many there were."""
        answers = owner.answers
        ranks: list[int] = []  # they leave the order together, because that costs half as much
        for request_id in request_ids:
            answer = answers.pop(request_id, None)
            if answer is not None:
                rank, _, _, charge = answer
                ranks.append(rank)
                if charge is not None:
                    self._discharge(owner, charge)
        self._order.remove_all(ranks)
        if not answers:
            del self._users[owner.name]
        return len(ranks)

    def _begin(self, user: str) -> _User:
        owner = self._users[user] = _User(user)
        return owner

    def _all(self) -> Iterator[tuple[str, bytes, int, _Answer]]:
        for user, request_id, time_ms in self._order.values():
            yield user, request_id, time_ms, self._users[user].answers[request_id]

    def _charged(self, user: str, charge: int | None) -> tuple[bytes, int, _Brief] | None:
        large = self._users[user].large
        return None if charge is None or large is None else large[charge]

    def _make_room(self, owner: _User, size: int) -> bool:
        """Reduce the oldest large answers of a user until one of ``size`` bytes fits; False if it never does."""
        while owner.large_size + size > limits.ANSWERS_SIZE_PER_USER_MAX or self.size + size > limits.ANSWERS_SIZE_MAX:
            found = None if owner.large is None else owner.large.oldest()
            if found is None:
                return False
            request_id, _, brief = found
            rank, digest, _, charge = owner.answers[request_id]
            owner.answers[request_id] = (rank, digest, brief, None)  # keeps its rank: only its result is shorter
            self._discharge(owner, charge)
        return True

    def _charge(self, owner: _User, request_id: bytes, size: int, brief: _Brief) -> int:
        """Charge a large answer to its user. Returns its rank among the user's."""
        if owner.large is None:
            owner.large = RankedBlocks()
        owner.large_size += size
        self.size += size
        return owner.large.add((request_id, size, brief))

    def _discharge(self, owner: _User, charge: int | None) -> None:
        if charge is not None and owner.large is not None:
            _, size, _ = owner.large[charge]
            owner.large.remove(charge)
            owner.large_size -= size
            self.size -= size

    def digest(self) -> bytes:
        """32 bytes that are equal for equal tables, their order and clock included."""
        digest = hashlib.sha256(_encoder.encode(self.clock_ms))
        for user, request_id, time_ms, (_, known_digest, result, _) in self._all():
            digest.update(_encoder.encode(((user, request_id), (time_ms, known_digest, result))))
        return digest.digest()

    def check(self) -> None:
        """Raise ``AssertionError`` with the invariant that does not hold."""
        counts: dict[str, int] = {}
        sizes: dict[str, int] = {}
        before = 0
        self._order.check()
        for place in self._order.values():
            user, request_id, time_ms = place
            owner = self._users.get(user)
            answer = None if owner is None else owner.answers.get(request_id)
            require(answer is not None and self._order[answer[0]] is place, "each place is that of an answer")
            require(before <= time_ms <= self.clock_ms, "answers are in the order of their time")
            before = time_ms
            counts[user] = counts.get(user, 0) + 1
            sizes[user] = sizes.get(user, 0) + self._checked_size(user, request_id)
        require(counts.keys() == self._users.keys(), "each user has answers")
        for user, owner in self._users.items():
            require(len(owner.answers) == counts[user], "each answer has its place")
            require(len(owner.answers) <= limits.ANSWERS_PER_USER_MAX, "no user has too many answers")
            require(owner.large_size == sizes[user], "the large answers of each user add up")
            require(owner.large_size <= limits.ANSWERS_SIZE_PER_USER_MAX, "large answers fit their user's budget")
            if owner.large is not None:
                owner.large.check()
                charged = sum(size for _, size, _ in owner.large.values())
                require(charged == owner.large_size, "no other answer is charged")
        require(sum(sizes.values()) == self.size, "the large answers add up")
        require(self.size <= limits.ANSWERS_SIZE_MAX, "large answers fit their budget")

    def _checked_size(self, user: str, request_id: bytes) -> int:
        """The size for which an answer is charged: its own, and 0 for a small one."""
        _, _, result, charge = self._users[user].answers[request_id]
        charged = self._charged(user, charge)
        size = len(_encoder.encode(result))
        if charged is None:
            brief = isinstance(result, int | Failure)
            require(brief or size <= limits.ANSWER_SMALL_SIZE, "all large answers are charged")
            return 0
        require(charged[:2] == (request_id, size), "large answers are charged with their size")
        return size


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
