"""The classes of `haptera.sync`: the asynchronous classes that each is made of, and all that a rule cannot tell.

`tools/generate_sync.py` reads this. The docstrings and signatures come from the sources. Here are the few bodies that
are more than a call, the docstrings that speak of tasks and loops, and the methods that a thread has no use for.
"""

from __future__ import annotations

from typing import Final, NamedTuple

#: As in haptera.sync.services, which imports generated modules, and so cannot be imported to make them.
HANDLER_THREADS: Final = 32


class Made(NamedTuple):
    """A class that is made: its base, the sources of its methods, in order, and what is special about them."""

    name: str
    base: str
    sources: tuple[str, ...]  # "file:class" under src/haptera
    generic: bool = False  # whether it has a parameter, T, as the asynchronous class has


CLIENT: Final = "client/"
CALLS: Final = "client/calls/"
RECIPES: Final = "client/recipes/"
TYPED: Final = "client/typed/"

#: The files of src/haptera/sync that are made, with their purpose and their classes.
MODULES: Final[dict[str, tuple[str, tuple[Made, ...]]]] = {
    "answers.py": (
        "The answers of a store that come part by part, and its watches and copies, for threads.",
        (
            Made("Scan", "Arriving", (f"{CALLS}streamed_answer.py:StreamedAnswer", f"{CALLS}scan.py:Scan")),
            Made("Backup", "Facade", (f"{CALLS}streamed_answer.py:StreamedAnswer", f"{CALLS}backup_pieces.py:Backup")),
            Made("Watch", "Arriving", ("client/watches/watch.py:Watch",)),
            Made("Cache", "Facade", ("client/watches/cache.py:Cache",)),
        ),
    ),
    "batches.py": (
        "Transactions and pipelines, for threads.",
        (
            Made("Transaction", "Facade", (f"{CALLS}transaction.py:Transaction",)),
            Made("Pipeline", "Facade", (f"{CALLS}pipeline.py:Pipeline", f"{CALLS}pending_calls.py:PendingCalls")),
        ),
    ),
    "recipes.py": (
        "Leases, locks, queues and the other recipes, for threads.",
        (
            Made("Lease", "Facade", ("client/leases/lease.py:Lease",)),
            Made("Holding", "Facade", (f"{RECIPES}holding.py:Holding",)),
            Made("Lock", "Facade", (f"{RECIPES}holding.py:HeldBlock", f"{RECIPES}lock.py:Lock")),
            Made("Semaphore", "Facade", (f"{RECIPES}holding.py:HeldBlock", f"{RECIPES}semaphore.py:Semaphore")),
            Made("Election", "Facade", (f"{RECIPES}holding.py:HeldBlock", f"{RECIPES}election.py:Election")),
            Made("Barrier", "Facade", (f"{RECIPES}barrier.py:Barrier",)),
            Made("Counter", "Facade", (f"{RECIPES}counter.py:Counter",)),
            Made("RateLimit", "Facade", (f"{RECIPES}rate_limit.py:RateLimit",)),
            Made("Job", "Facade", (f"{RECIPES}job.py:Job",)),
            Made("Worker", "Facade", (f"{RECIPES}queue_worker.py:Worker",)),
            Made("Queue", "Facade", (f"{RECIPES}queue.py:Queue",)),
        ),
    ),
    "users.py": (
        "The administration of users, roles, grants and tokens, for threads.",
        (Made("Administration", "Facade", (f"{CALLS}administration.py:Administration",)),),
    ),
    "typed_values.py": (
        "The calls of a database whose values are of a type of the program, for threads.",
        (
            Made("TypedScan", "Facade", (f"{TYPED}typed_streams.py:TypedScan",), generic=True),
            Made("TypedChanges", "Facade", (f"{TYPED}typed_streams.py:TypedChanges",), generic=True),
            Made("TypedWatch", "Facade", (f"{TYPED}typed_streams.py:TypedWatch",), generic=True),
            Made("TypedCache", "Facade", (f"{TYPED}typed_cache.py:TypedCache",), generic=True),
            Made("TypedTransaction", "Facade", (f"{TYPED}typed_transaction.py:TypedTransaction",), generic=True),
            Made("TypedDatabase", "Facade", (f"{TYPED}typed_database.py:TypedDatabase",), generic=True),
        ),
    ),
    "database.py": (
        "The database, for threads.",
        (
            Made(
                "Database",
                "Store",
                (
                    f"{CALLS}key_calls.py:KeyCalls",
                    f"{CALLS}transaction_calls.py:TransactionCalls",
                    f"{CALLS}pipeline_calls.py:PipelineCalls",
                    f"{CALLS}change_calls.py:ChangeCalls",
                    f"{CALLS}lease_calls.py:LeaseCalls",
                    f"{CALLS}recipe_calls.py:RecipeCalls",
                    f"{CALLS}store_calls.py:StoreCalls",
                    f"{CALLS}access_calls.py:AccessCalls",
                    "client/database.py:Database",
                ),
            ),
        ),
    ),
    "messaging.py": (
        "Peers, servers and requests of the messaging library, for threads.",
        (
            Made("CallStream", "Facade", ("peer/call.py:CallStream",)),
            Made("TypedCallStream", "Facade", ("peer/typed_answers.py:TypedCallStream",), generic=True),
            Made("Peer", "Connected", ("peer/peer.py:Peer",)),
            Made("LastingStream", "Facade", ("peer/lasting_stream.py:LastingStream",)),
            Made("LastingPeer", "Lasting", ("peer/lasting_peer.py:LastingPeer",)),
            Made("Server", "Listening", ("peer/server.py:Server",)),
            Made("Request", "Facade", ("peer/request.py:Request",)),
        ),
    ),
}

#: Methods that are left out: of the pipeline's own parts, and of code that runs on the loop.
LEFT_OUT: Final = frozenset(
    {
        "Peer.request",  # gives a future
        "Peer.when_writable",
        "Peer.writable",
        "Peer.attributes",
        "Server.opened",
        "Server.established",
        "Server.lost",
        "Server.tls_failed",
        "Request.respond",  # a handler returns its answer, or yields its items
        "Request.fail",
        "Request.send",
        "Request.room",
        "Request.left",
        "Request.try_send",
        "Request.try_send_all",
        "Request.on_cancel",
        "Request.answered_below",
    }
)

#: Plain methods that touch nothing of the loop: the thread calls them itself.
DIRECT: Final = frozenset(
    {
        "Cache.get",
        "Cache.on_change",
        "Database.backup",
        "Database.barrier",
        "Database.cached",
        "Database.counter",
        "Database.history",
        "Database.leases",
        "Database.pipeline",
        "Database.queue",
        "Database.rate_limit",
        "Database.scan",
        "Database.transaction",
        "Database.watch",
        "Election.changes",
        "Queue.worker",
        "Administration.users",
        "Administration.roles",
        "Administration.tokens",
        "Database.typed",
        "Transaction.set",
        "Transaction.delete",
        "TypedCache.get",
        "TypedCache.on_change",
        "TypedDatabase.cached",
        "TypedDatabase.scan",
        "TypedDatabase.watch",
        "TypedTransaction.set",
    }
)

#: The method that ends what a thread was given in the moment in which it was interrupted.
UNDO: Final = {"Lease": "close", "Job": "release", "Peer": "aclose", "LastingPeer": "aclose", "Server": "aclose"}

#: Attributes that `__init__` makes, or a field of a struct, and which are public: their types and docstrings.
ATTRIBUTES: Final = {
    "Job": (
        ("number", "int", "Its number. A job that was put after the put of another had ended has a larger one."),
        ("value", "bytes", "Its value."),
        ("attempts", "int", "How often it was taken, this time included: 1 for the first time."),
        ("token", "int", "For ``fence=``: a change with it is made only while the job is still this worker's."),
    ),
    "Peer": (
        (
            "dialled",
            "tuple[str, int] | str | None",
            "The host and port, or the path, by which this side has dialled it; None if it was accepted.",
        ),
        (
            "identity",
            "Identity | None",
            """The user that the other side of an accepted connection has proved to be; None before its proof.

Where no proof is asked for, and on the dialling side, it is anyone.""",
        ),
    ),
    "CallStream": (("answer", "Answer | None", "The terminal answer, once the items have ended."),),
    "Request": (
        ("stream", "int", "The number of its stream."),
        ("service", "str", "The name of the service that it is for."),
        ("method", "str", "The name of the method that it is for."),
        ("payload", "bytes", "The argument, any bytes."),
        ("request_id", "bytes | None", "The caller's UUID of this request, 16 bytes, or None."),
        ("deadline", "float | None", "When the time of the caller is over, as `time.monotonic` counts, or None."),
        (
            "cancelled",
            "bool",
            "Whether the caller no longer wants the answer, or its time is over: a long handler looks at it.",
        ),
        ("resent", "bool", "Whether the caller may have sent it on another connection before."),
    ),
}

_NEXT_OF_STREAM: Final = """
try:
    return self._thread.run(self._inner.__anext__, desk=self._desk)
except StopAsyncIteration:
    raise StopIteration from None
"""

#: Bodies that are more than a call. Each is the text of the function's statements.
BODIES: Final = {
    "Database.run": """
desk = Desk()

async def asked(transaction: AsyncTransaction) -> T:
    return await desk.ask(lambda: function(Transaction(transaction, self)))

return self._thread.run(lambda: self._inner.run(asked, attempts=attempts, fence=fence, timeout=timeout), desk=desk)
""",
    "Database.revision": "assert self._revisions is not None\nreturn self._revisions.own",
    "Database.__aenter__": "_ = self._run(self._inner.__aenter__, undo=lambda _: self._inner.aclose())\nreturn self",
    "Database.__aexit__": "self.aclose()",
    "Database.drain": "self._open.closed = True\nself._run(lambda: self._inner.drain(timeout=timeout))",
    "Database.aclose": "self._open.closed = True\nself._run(self._inner.aclose)",
    "Scan.__anext__": "return super().__next__()",
    "Scan.next_entries": "return self._taken() or self._run(self._inner.next_entries)",
    "Scan.aclose": "self._taken()\nself._run(self._inner.aclose)",
    "Watch.__anext__": "return super().__next__()",
    "Watch.next_events": "return self._taken() or self._run(lambda: self._inner.next_events(timeout=timeout))",
    "Watch.ready": "return bool(self._arrived) or self._inner.ready",
    "Watch.aclose": "self._taken()\nself._run(self._inner.aclose)",
    "Cache.__iter__": "return iter(self._on_loop(lambda: list(self._inner)))",
    "TypedCache.__iter__": "return iter(self._on_loop(lambda: list(self._inner)))",
    "TypedDatabase.within": "return TypedTransaction(self._inner.within(transaction._inner), self)",
    "Peer.call": """
call: Any = self._inner.call
typed = {"codec": codec, "returning": returning} if codec or returning else {}
desk = None if items is None else Desk()
pulled = None if items is None or desk is None else desk.pulled(items)
found: bytes | T | None = self._thread.run(
    lambda: call(service, method, payload, items=pulled, timeout=timeout, **typed), desk=desk
)
return found
""",
    "Peer.stream": """
stream: Any = self._inner.stream
typed = {"codec": codec, "returning": returning} if codec or returning else {}
desk = None if items is None else Desk()
pulled = None if items is None or desk is None else desk.pulled(items)
found = self._on_loop(lambda: stream(service, method, payload, items=pulled, timeout=timeout, **typed))
return TypedCallStream(found, self, desk=desk) if typed else CallStream(found, self, desk=desk)
""",
    "Peer.aclose": "self._ending()\nself._run(self._inner.aclose)\nself._over()",
    "Peer.drain": "self._ending()\nself._run(lambda: self._inner.drain(timeout))\nself._over()",
    "Peer.services": "return tuple(self._inner.services)",
    "Server.aclose": "self._ending()\nself._run(self._inner.aclose)\nself._over()",
    "Server.drain": "self._ending()\nself._run(lambda: self._inner.drain(timeout))\nself._over()",
    "Server.__aexit__": "self.aclose()",
    "Peer.__aexit__": "self.aclose()",
    "CallStream.__anext__": _NEXT_OF_STREAM,
    "TypedCallStream.__anext__": _NEXT_OF_STREAM,
    "LastingPeer.call": """
desk = None if items is None else Desk()
pulled = None if items is None or desk is None else desk.pulled(items)
return self._thread.run(
    lambda: self._inner.call(service, method, payload, items=pulled, timeout=timeout), desk=desk
)
""",
    "LastingPeer.stream": """
desk = None if items is None else Desk()
pulled = None if items is None or desk is None else desk.pulled(items)
found = self._on_loop(lambda: self._inner.stream(service, method, payload, items=pulled, timeout=timeout))
return LastingStream(found, self, desk=desk)
""",
    "LastingPeer.on_connect": "self._have_told(callback)",
    "LastingPeer.aclose": "self._ending()\nself._run(self._inner.aclose)\nself._over()",
    "LastingPeer.drain": "self._ending()\nself._run(lambda: self._inner.drain(timeout))\nself._over()",
    "LastingPeer.__aexit__": "self.aclose()",
    "LastingStream.__anext__": _NEXT_OF_STREAM,
    "Request.peer": "return Peer(self._inner.peer, self)",
}


class MadeFunction(NamedTuple):
    """A function that is made: its name, its source, a keyword of its own with what it is, and its body."""

    name: str
    source: str  # "file:function" under src/haptera
    body: str
    keyword: str = ""
    documentation: str = ""
    returns: str = ""
    #: Forms for type checkers: a parameter, its text in this form, and the result.
    forms: tuple[tuple[str, str, str], ...] = ()


_THREADS: Final = "Requests that are handled at once, each in a thread of its own; more wait for their turn."

#: The functions that open something, in the file openings.py.
OPENINGS: Final = (
    MadeFunction("connect", "client/__init__.py:connect", "return _begun(async_connect({arguments}))"),
    MadeFunction("open", "client/__init__.py:open_embedded", "return _begun(open_embedded({arguments}))"),
    MadeFunction(
        "listen",
        "peer/listen_and_dial.py:listen",
        """
threads = HandlerThreads(services, handler_threads)
return Server(shared.run(lambda: async_listen({arguments}), undo=lambda made: made.aclose()), handlers=threads)
""",
        f"handler_threads: int = {HANDLER_THREADS}",
        _THREADS,
    ),
    MadeFunction(
        "dial",
        "peer/listen_and_dial.py:dial",
        """
threads = HandlerThreads(services, handler_threads)
begin: Any = async_dial
found: Any = shared.run(lambda: begin({arguments}), undo=lambda made: made.aclose())
return LastingPeer(found, handlers=threads) if reconnect else Peer(found, handlers=threads)
""",
        f"handler_threads: int = {HANDLER_THREADS}",
        _THREADS,
        returns="Peer | LastingPeer",
        forms=(
            ("reconnect: bool=False", "reconnect: Literal[False]=False", "Peer"),
            ("reconnect: bool=False", "reconnect: Literal[True]", "LastingPeer"),
        ),
    ),
)

#: Members that a class has beside those of its source.
MORE: Final = {
    "Scan": """
def _arrive(self) -> list[Entry]:
    found = self._run(self._inner.next_entries)
    if not found:
        raise StopIteration
    return found
""",
    "Watch": """
def _arrive(self) -> list[Event]:
    try:
        return self._run(self._inner.next_events)
    except StopAsyncIteration:
        raise StopIteration from None
""",
    "CallStream": """
def __init__(
    self, inner: AsyncCallStream, owner: object = None, thread: LoopThread = shared, *, desk: Desk | None = None
) -> None:
    super().__init__(inner, owner, thread)
    self._desk = desk
""",
    "LastingStream": """
def __init__(
    self, inner: AsyncLastingStream, owner: object = None, thread: LoopThread = shared, *, desk: Desk | None = None
) -> None:
    super().__init__(inner, owner, thread)
    self._desk = desk
""",
    "TypedCallStream": """
def __init__(
    self, inner: AsyncTypedCallStream[T], owner: object = None, thread: LoopThread = shared, *, desk: Desk | None = None
) -> None:
    super().__init__(inner, owner, thread)
    self._desk = desk
""",
}

#: The items of an iteration where many items arrive together.
ITEMS: Final = {"Scan": "Entry", "Watch": "Event"}

#: The slots of a class that has more than its base.
SLOTS: Final = {"CallStream": ("_desk",), "TypedCallStream": ("_desk",), "LastingStream": ("_desk",)}

#: Return types that are others for threads.
RETURNS: Final = {"Peer.services": "tuple[str, ...]"}
