"""Docstrings for threads: those of the asynchronous sources in other words, and the few that say something else."""

from __future__ import annotations

import re
import textwrap
from typing import Final

SECTIONS: Final = ("Args:", "Returns:", "Raises:", "Keys:", "Attributes:")

#: Words of docstrings, and theirs for threads. The longer come first.
WORDS: Final = (
    (r"An asynchronous iterator of", "An iterator of"),
    (r"as an asynchronous iterator", "as an iterator"),
    (r"\basync (with|for)\b", r"\1"),
    (r"``await db = haptera", "``db = haptera"),
    (r" \(or ``await``\), which opens", "; it opens"),
    (r"The database, which entering or awaiting it opens\.", "The database, which is open."),
    (r"\(on entering; ", "("),
    (r", or ``await``\.", "."),
    (r"\bawait ", ""),
    (r"\bhaptera\.(connect|open|dial|listen)\b", r"haptera.sync.\1"),
    (r"A coroutine function of one argument", "A function of one argument"),
    (r"\beach task makes its own\b", "each thread makes its own"),
)
FORBIDDEN: Final = re.compile(r"\b(async|await|asyncio|asynchronous|coroutine|event loop|task|tasks)\b")

#: Docstrings of classes and methods that are about tasks, and say something else of threads.
DOCSTRINGS: Final = {
    "Database": """A key-value store. Made by :func:`haptera.sync.connect` or :func:`haptera.sync.open`, for ``with
… as db``.

Any number of threads may use it at once. All of them share one connection, and their calls leave
together. Keys are ``str``, values ``str`` (stored as UTF-8) or bytes. Each call takes ``timeout``
in seconds: the database's own unless given, None for no limit. Ctrl-C in a call raises
``KeyboardInterrupt`` and leaves the database usable; a change that was under way may have been
applied.

Every call may raise ``ServerError`` (one subclass for each code, such as ``VersionMismatch``),
``DeadlineExceeded`` when its time is over, ``ConnectionLost`` when the server cannot be reached or
was lost and sending the call again might apply it twice, and ``RemoteProtocolError`` when the
answer is malformed. ``outcome`` of the first three says whether a change was applied. ``TypeError``
and ``ValueError`` mean a mistake in the call. A served and an embedded store refuse the same call
with the same error. Where a server refuses the connection the ``ConnectionLost`` is of the class of
its reason, too: ``TooManyConnections``, for instance.

A database may be made before a fork: each child then has a connection of its own. A function that
is called on the loop of this package, such as one that `Cache.on_change` was given, makes no calls:
they raise ``WrongLoop``.""",
    "Database.revision": """The store's revision in the last answer to a call of this thread. A thread that has
made none
sees that of the last answer at all; 0 before the first. Right after a call it is that call's:
for a read of the past, the revision that it is of.""",
    "Database.connected_once": """Whether there has ever been a connection, or an embedded store was opened.

Until then nothing was sent: a change that is interrupted meanwhile was certainly not
applied.""",
    "Database.lease": """Grant a lease, and keep it alive until it is closed: ``with db.lease(10.0) as lease``.

It is renewed at each third of its time, all leases of this database together, until it is closed or
lost or the database is closed. Its ``lost`` says when it is not there any more.

Args:
    ttl: Seconds that it goes on without a renewal: 1 to 86,400. Keys that belong to it stay for so
        long when this program ends without a word; a program that stands still for so long has lost
        them.

Returns:
    The lease.

Raises:
    TooManyRequests: There are 100,000 leases.""",
    "Database.lock": """Hold a lock: ``with db.lock("jobs/nightly") as lock``.

Claimants have it one after the other, in the order in which they came. No one can end the block of
a thread, so a lock that is lost in it shows by ``lock.held``, and the end of the block raises
``LockLost``. Pass ``lock.token`` as ``fence=`` to the changes of the block, and none of them is
made after the loss.

Args:
    name: The name of the lock, which all claimants use.
    value: The text or bytes that say who the claimant is; the host and the process unless given.
    ttl: Seconds for which the lock stays with a holder that is not heard of: 1 to 86,400.
    wait: Seconds to wait for others, when the place in the line is taken; 0: none. No bound unless
        given.
    timeout: Seconds for each call to the store.

Returns:
    The claim. Entering it raises ``WaitTimeout`` when others have held the lock all that time.""",
    "Transaction": """Reads and writes of several keys that take effect at one moment, or not at all.

Made by `Database.transaction` and `Database.run`. Reads see the transaction's own writes. Writes
are sent when the block of ``with`` ends; an exception in it drops them. One thread uses a
transaction at a time.""",
    "Watch": """The changes of some keys, each once and in the order of their revisions (spec/protocol.md,
section 7).

``for event in db.watch(...)``. It begins with the first event that is waited for, or, as ``with
db.watch(...) as events``, before the block. It goes on over lost connections from where it was,
until it is closed: a loop that is left early ends it as soon as the object is dropped, `aclose` at
a known place. A wait that is interrupted, or whose time is over, ends the stream at the server, and
the next wait goes on from there. An error that ends it is raised by each later wait too: it never
looks as if there were no more changes. One thread reads it at a time, and another may close it.""",
    "Watch.aclose": """End the watch, at the server too. A loop over it in another thread ends without an error.""",
    "Cache.on_change": """Have ``callback`` called with each change, after the copy has it.

Args:
    callback: It is called in the thread of the loop, must not wait, and makes no calls to the
        store. An error that it raises is logged.""",
    "Holding": """Something that a program holds: a lock, a leadership, a permit. Entering the claim to it gives
it.

A thread that loses it is not stopped: `held` says whether it is still there, and ``fence=`` with
the `token` keeps the changes of one that does not look from being made.""",
    "Lease.lost": """The end of the lease: ``lease.lost.wait()`` waits for it. It gives the error that says why the
lease was lost, or None where its holder has closed it.""",
    "Holding.lost": """The end of it: ``lock.lost.wait()`` waits for that, and gives the error that says why it was
lost, or None where it was given up.""",
    "Job.lost": """The end of the lease that holds the job, as `Lease.lost`.""",
    "Job": """A job that a worker has taken, and no other has. Made by `Worker.take`; use it as ``with job``.

It is acknowledged when the block ends, and given back to the queue when the block raises. A job
that is lost in the block shows by `held`, and the ``with`` then raises ``Fenced``. A job that is
lost before raises it at once.""",
    "Job.ack": """Say that the job is done. It never comes back.

A store that cannot be reached, or refuses for a reason that passes, is asked again while the lease
goes on and the worker is open, also if the thread is interrupted.

Args:
    then: Operations as for `Database.transact`, 125 at most, that are made together with it, or not
        at all. So the changes that a job makes in the store are made once, however often it is
        taken.
    timeout: Seconds for each call to the store.

Raises:
    Fenced: The worker has lost the job, and another may have it. Nothing was changed.
    ConnectionLost, DeadlineExceeded: The store could not be reached in that time. The job may come
        back. So it may with a refusal that passes, such as ``StorageFull``.""",
    "Worker": """Takes jobs for any number of threads. Made by `Queue.worker`, for ``with queue.worker() as
worker``.

``for job in worker`` waits for one job after the other. The jobs that are in hand when the worker
ends are given back; those of a worker that was killed or stands still are free when its lease has
ended. A store that cannot be reached, or refuses for a reason that passes, is waited for, and a
lease that is lost meanwhile is followed by another.""",
    "Peer": """The other side of one connection: calls its services, and serves ours to it.

``haptera.sync.dial`` and ``haptera.sync.listen`` make peers. Any number of threads share the
connection, and all calls run at once; their answers come in any order. ``with`` closes it.""",
    "Peer.call": """Call a method and return its one answer.

Args:
    service: The name of the service.
    method: The name of its method.
    payload: The argument.
    items: Items to send behind the request, for a method that takes many. They are taken from it in
        this thread.
    timeout: Seconds, 5 unless the dialled URL says otherwise, None for no limit. The other side
        keeps it too.

Returns:
    The payload of the answer.

Raises:
    ServerError: The answer is an error; it is of the subclass of its code.
    DeadlineExceeded: The time is over.
    ConnectionLost: The connection has ended; its ``outcome`` is the call's, as far as it is known.
    LocalProtocolError: The other side would not take the request, or the method answers with items.
    TypeError, ValueError: ``timeout`` is not a number of seconds above 0.
    Exception: The exception of ``items``.""",
    "Peer.stream": """Call a method that answers with items.

Args:
    service: The name of the service.
    method: The name of its method.
    payload: The argument.
    items: Items to send behind the request. They are taken from it in the thread that iterates over
        the answer, while it waits.
    timeout: Seconds that the whole answer may take; None for no limit.

Returns:
    The items, to iterate over. Iterating raises as ``call`` does.""",
    "Peer.aclose": """Close the connection. Calls under way fail with ``ConnectionLost``.

The other side is told which answers to changes have been read, so that it need not remember them.""",
    "Peer.on_close": """Have a function called once when the connection has ended; at once if it has.

Args:
    callback: The function. It is called in the thread of the loop, and must not wait.""",
    "Peer.services": """The names of the services that this side hosts.""",
    "CallStream": """The items of a call's answer, as they come; ``answer`` is there after the last.

Iterate over it with ``for``, in one thread. Leaving early cancels the call: at once with ``with``
or ``aclose``, otherwise when the object is forgotten.""",
    "LastingPeer.call": """Call a method of the other side.

Args:
    service: The name of the service.
    method: The name of its method.
    payload: The argument.
    items: Items to send behind the request. A call with items is sent once, because they cannot be
        made again. They are taken from it in this thread.
    timeout: Seconds, the wait for a connection included; 5 unless the URL says otherwise, None for
        no limit.

Returns:
    The result.

Raises:
    ServerError: The error that the other side has answered with.
    ConnectionLost: There is no connection in time, or one is refused for a reason that stays: the
        outcome is ``not_applied``. Or the connection has ended before the answer: ``unknown``.
    WrongLoop: The process was forked from the one that has dialled.""",
    "LastingPeer.on_connect": """Have a function called with each connection, once the other side has welcomed
it; soon if there is one now.

``Peer.on_close`` of the connection tells its end. At most 1,000 functions may be registered.

Args:
    callback: The function. It is called in a thread of the handlers, and may make calls. An error
        that it raises is logged.""",
    "LastingStream": """The items of a call's answer, as they come. ``LastingPeer.stream`` makes it.

Iterate over it with ``for``, in one thread. It is begun again on another connection until its first
item has come, where the other side has certainly not begun it. Leaving early cancels the call, with
``with`` or ``aclose``.""",
    "Server.close": """Take no more connections; the open ones go on. `aclose` closes them too.""",
    "Request": """A request that the other side sent, as its handler sees it.

Calls that a handler makes while its request is not answered, on any peer, have no more time than
the request has left, and belong to the same trace.""",
    "Request.items": """The items that the caller sends behind a streaming request, as they come, for one thread.

Raises ``ConnectionLost`` if the connection ends before the last,
``concurrent.futures.CancelledError`` if the request is cancelled.""",
    "RateLimit.wait": """Count one use, as soon as the limit allows it. ``timeout`` is for each call to the store.

Once the store has said how long to wait, one that cannot be reached, or refuses for a reason that
passes, is waited for. An attempt that may have been counted is not taken for allowed.""",
    "Lock": """A claim to a lock. Made by `Database.lock`; ``with`` waits for the lock and gives a `Holding`.""",
}


def translated(name: str, docstring: str) -> str:
    """Return a docstring for threads. Raises ``ValueError`` for one that speaks of tasks and the like still."""
    docstring = without_examples(docstring)
    for pattern, word in WORDS:
        docstring = re.sub(pattern, word, docstring)
    found = FORBIDDEN.search(docstring)
    if found:
        raise ValueError(f"the docstring of {name} says {found[0]!r}: give it another in tools/sync_classes.py")
    return docstring


def without_examples(docstring: str) -> str:
    """Return a docstring without its examples, which await."""
    return "\n\n".join(part for part in docstring.split("\n\n") if not part.lstrip().startswith(">>> "))


def quoted(docstring: str, depth: int = 8) -> str:
    """Return a docstring as it is written ``depth`` columns from the left."""
    first, *others = reflowed(docstring, 120 - depth)
    if not others and len(first) <= 120 - depth - 6:
        return f'"""{first}"""'
    return "\n".join([f'"""{first}', *others, '"""'])


def reflowed(docstring: str, width: int) -> list[str]:
    """Return the lines of a docstring, with its paragraphs and the entries of its sections broken again."""
    entries: list[str] = []
    section = ""
    going_on = False
    for line in docstring.splitlines():
        indent = len(line) - len(line.lstrip())
        if not line.strip() or line in SECTIONS:
            section = line if line.strip() else section
            entries.append(line.strip())
            going_on = False
        elif going_on and (indent == 0 or indent > 4 or section == "Returns:"):
            entries[-1] += f" {line.strip()}"
        else:
            section = section if indent else ""
            entries.append(line)
            going_on = True
    lines: list[str] = []
    for number, entry in enumerate(entries):
        indent = len(entry) - len(entry.lstrip())
        behind = " " * (indent if entry.startswith("    ") and lines and lines[-1] == "Returns:" else indent and 8)
        room = width - 3 if number == 0 else width  # the quotes stand there
        broken = textwrap.wrap(entry, room, subsequent_indent=behind, break_long_words=False, break_on_hyphens=False)
        lines += broken or [""]
    return lines
