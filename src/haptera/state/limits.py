"""Every limit of the replicated state: its name, its value, its reason.

The limits that decide the effect of a logged command (the remembered answers, the largest revision) are part of the
format: all replicas and every replay must agree on them, so they are constants and not configuration. The limits of
keys, values and numbers are in `haptera.key_rules`, because a client that cannot send an argument judges by them too.
"""

from __future__ import annotations

from typing import Final

#: Stars in a glob: each begins one more search in every key that is looked at.
GLOB_STARS_MAX: Final = 64
#: Keys of a delete_many that are looked for before it is logged, to save the entry where none is there: a tenth of a
#: millisecond at most.
KEYS_LOOKED_AT_MAX: Final = 1024
#: Dead keys that a count looks at to leave them out: half a millisecond. Where more wait to be removed, it is a count
#: that looks at each key.
DEAD_LOOKED_AT_MAX: Final = 1024
#: Bytes of one command, so that a batch of them still fits a record of the log. The default max_message, for callers
#: that no connection limits.
COMMAND_SIZE_MAX: Final = 16 * 1024 * 1024

#: Compares of a transact, and operations of each of its two lists. All are judged and made in one step, before and
#: after which others have their turns: this many take a fifth of a millisecond, and as long again to be checked.
TRANSACT_PARTS_MAX: Final = 128
#: Bytes of the values in the results of a transact, so that its answer is one message. A transact that gives more does
#: not apply.
TRANSACT_VALUES_SIZE_MAX: Final = COMMAND_SIZE_MAX - 16 * 1024

#: Leases of one store: 64 MB, and a node that files all of them when it starts does so in a tenth of a second.
LEASES_MAX: Final = 100_000
#: Keys that belong to one lease: as many as one set_many has. Its end removes them all at one revision.
LEASE_KEYS_MAX: Final = 131_072
#: Leases that one answer to leases lists.
LEASES_LISTED_MAX: Final = 1_000

#: Users and tokens of one store: each change of one copies their table, in a fifth of a millisecond.
USERS_MAX: Final = 10_000
TOKENS_MAX: Final = 10_000
#: Roles of one store, the roles that one user, token or role has, and the grants of all roles together: all that one
#: user may do is compiled in some milliseconds, and in slices of 20 ms together where all grants are its own, and long.
#: A command on tables that are full in each way takes up to 15 ms; one that removes a role is applied in slices.
ROLES_MAX: Final = 1_000
ROLES_HELD_MAX: Final = 64
GRANTS_MAX: Final = 4_096
#: Bytes of the patterns, behind the literal text at their beginning, that one key may be compared with: of the distinct
#: patterns of all roles whose literal text the key begins with, but for prefixes and single keys. A byte takes up to
#: 5 us with a key of 4,096 bytes, which is a nanosecond for each place. So a look at one key takes 2.5 ms at most, in a
#: slice for each pattern, and the first one behind a change 2 us more for each byte, which it compiles.
GRANT_RESTS_SIZE_MAX: Final = 512
#: Users, roles or tokens that one answer lists, and the characters of their names from which on it lists no more.
ACCESS_LISTED_MAX: Final = 1_000
ACCESS_PAGE_SIZE: Final = 64 * 1024

#: Section 7.1: how long an answer is remembered, by its own clock; how large it may be; how many one user may have.
ANSWER_KEPT_MS: Final = 600_000
ANSWER_SIZE_MAX: Final = 4096
ANSWERS_PER_USER_MAX: Final = 100_000
#: The clock of the answers advances by at most a minute for each entry: a wall clock that is put forward by an hour, or
#: a node that was down for one, takes a tenth of an answer's time. A store at rest keeps its answers a little longer,
#: unless they are many (`haptera.node.answer_aging`).
ANSWER_CLOCK_STEP_MS_MAX: Final = 60_000
#: Answers that one entry may expire. As many as the largest batch has commands, so that expiry keeps up with what is
#: remembered and never stops the loop for longer than a batch does.
ANSWERS_EXPIRED_MAX: Final = 4096
#: An answer of up to 64 bytes is always kept whole: the version alone would take as much memory.
ANSWER_SMALL_SIZE: Final = 64
#: Bytes of the larger answers of one user, and of all users. Their number alone would allow 400 MB of previous values
#: for each user; 8 MiB are the last 2,000 of the largest, many more than a client has in flight.
ANSWERS_SIZE_PER_USER_MAX: Final = 8 * 1024 * 1024
ANSWERS_SIZE_MAX: Final = 64 * 1024 * 1024

#: Gaps in the revisions that a store remembers: a directory that is restored once a week leaves so many in a year. Of
#: the past before a gap that is forgotten nothing is read any more.
GAPS_MAX: Final = 64

#: Milliseconds between the progress marks of a watch: once a second is as fresh as a copy can be told to be without a
#: cost that counts, an hour is more than any connection stays silent.
PROGRESS_MS_MIN: Final = 1000
PROGRESS_MS_MAX: Final = 3_600_000
#: Scans open at once in one store. Each is a reader that may hold older entries.
CURSORS_MAX: Final = 4096
#: Bytes of older entries kept for readers. Beyond it the oldest reader loses its revision (4009), because a slow reader
#: must not be able to fill the memory of the store that it reads.
HELD_SIZE_MAX: Final = 256 * 1024 * 1024
#: Events that a store keeps unless it is configured otherwise, and the bytes that they may take with the values that
#: were replaced: an hour at 277 changes a second.
EVENTS_MAX: Final = 1_000_000
EVENTS_SIZE_MAX: Final = 256 * 1024 * 1024
#: Events that a snapshot has, and their bytes: a quarter of a second of its load.
SNAPSHOT_EVENTS_MAX: Final = 100_000
SNAPSHOT_EVENTS_SIZE_MAX: Final = 32 * 1024 * 1024
#: Rows and bytes of one answer to a history, unless one row is larger, and the bytes of a row beside its value: as much
#: as a connection may have queued.
HISTORY_ROWS_MAX: Final = 1000
HISTORY_SIZE_MAX: Final = 1024 * 1024
HISTORY_ROW_OVERHEAD: Final = 64
#: Older entries freed at one time, so that the end of a long scan over a busy store is no pause for everyone else.
SWEEP_MAX: Final = 256
#: Units of work (`state.sliced_work`) of one slice: about a millisecond. The page of a scan is one.
SLICE_WORK_MAX: Final = 4096
