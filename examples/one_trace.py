"""One trace through four processes: a program, two services, and the store that both services use.

Run it without arguments: it starts the other three processes, makes one call, and prints the trace as a picture for
Mermaid, drawn from the spans that all four have recorded. It needs `pip install opentelemetry-sdk`. A real program
would hand its spans to a collector (`opentelemetry-exporter-otlp`); here each process writes a file.
"""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

import haptera

#: The processes beside the program itself.
ROLES = ("orders", "stock", "store")
WAIT_S = 30.0


class SpanFile(SpanExporter):
    """Writes the spans of a process into a file, a line each."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self.path.open("a", encoding="utf-8") as file:
            for span in spans:
                file.write(json.dumps({"process": self.path.stem, **json.loads(span.to_json())}) + "\n")
        return SpanExportResult.SUCCESS


def record(folder: Path, process: str) -> None:
    """Have the spans of this process recorded, before it makes a peer or a database."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(SpanFile(folder / f"{process}.jsonl")))
    trace.set_tracer_provider(provider)


def url_of(folder: Path, process: str) -> str:
    socket = folder / "data" / "haptera.sock" if process == "store" else folder / f"{process}.sock"
    return f"haptera+unix://{socket}"


class Stock(haptera.Service):
    """Knows how many pieces there are."""

    name = "stock"

    def __init__(self, db: haptera.Database) -> None:
        self.db = db

    @haptera.method
    async def take(self, request: haptera.Request) -> bytes:
        return str(await self.db.increment(f"taken/{request.payload.decode()}")).encode()


class Orders(haptera.Service):
    """Takes orders."""

    name = "orders"

    def __init__(self, db: haptera.Database, stock: haptera.peer.LastingPeer) -> None:
        self.db = db
        self.stock = stock

    @haptera.method
    async def place(self, request: haptera.Request) -> bytes:
        if await self.db.get("orders/closed") is not None:
            raise haptera.CallError(10_001, "CLOSED", "no orders are taken")
        taken = await self.stock.call("stock", "take", request.payload)
        await self.db.set_many({"orders/last": request.payload, "orders/count": taken})
        return b"order " + taken


async def serve(folder: Path, role: str) -> None:
    """Be one of the two services, until SIGTERM."""
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    async with haptera.connect(url_of(folder, "store"), timeout=WAIT_S) as db:
        if role == "stock":
            async with haptera.listen(url_of(folder, role), services=[Stock(db)]):
                await stopped.wait()
        else:
            async with (
                haptera.dial(url_of(folder, "stock"), timeout=WAIT_S, reconnect=True) as stock,
                haptera.listen(url_of(folder, role), services=[Orders(db, stock)]),
            ):
                await stopped.wait()


async def order(folder: Path) -> None:
    async with haptera.dial(url_of(folder, "orders"), timeout=WAIT_S, reconnect=True) as orders:
        with trace.get_tracer("example").start_as_current_span("buy apples"):
            await orders.call("orders", "place", b"apples", timeout=WAIT_S)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the spans of the one trace, the earliest first."""
    spans = [json.loads(line) for file in folder.glob("*.jsonl") for line in file.read_text().splitlines()]
    (root,) = [span for span in spans if span["name"] == "buy apples"]
    of_it = [span for span in spans if span["context"]["trace_id"] == root["context"]["trace_id"]]
    return sorted(of_it, key=lambda span: str(span["start_time"]))


def draw(spans: list[dict[str, Any]]) -> Iterator[str]:
    """Give the lines of a sequence diagram: an arrow for each call whose request was recorded by another process."""
    yield "sequenceDiagram"
    for process in ("program", *ROLES):
        yield f"    participant {process}"
    children: dict[str | None, list[dict[str, Any]]] = {}
    for span in spans:
        children.setdefault(span["parent_id"], []).append(span)

    def below(span: dict[str, Any]) -> Iterator[str]:
        for child in children.get(span["context"]["span_id"], []):
            here, there = span["process"], child["process"]
            if here != there:
                yield f"    {here}->>+{there}: {span['name']}"
            yield from below(child)
            if here != there:
                yield f"    {there}-->>-{here}: {child['attributes'].get('rpc.response.status_code', 'done')}"

    yield from below(children[None][0])


def start(folder: Path, role: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, role, str(folder)]
    with (folder / f"{role}.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603  # this very file


def show(folder: Path) -> None:
    """Start the other processes, make the call, end them, and print the picture."""
    record(folder, "program")
    processes = [start(folder, role) for role in ROLES]
    try:
        asyncio.run(order(folder))
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    print("\n".join(draw(read(folder))))


def main(arguments: list[str]) -> None:
    if not arguments:
        with tempfile.TemporaryDirectory() as temporary:
            show(Path(temporary))
    elif arguments[0] == "--keep":
        show(Path(arguments[1]))
    else:
        role, folder = arguments[0], Path(arguments[1])
        record(folder, role)
        if role == "store":
            # `haptera serve` in this process, with spans.
            from haptera.cli.startup import main as haptera_command  # noqa: PLC0415

            listener = f"haptera+unix://{folder / 'listener.sock'}"
            sys.argv = ["haptera", "serve", "--data-dir", str(folder / "data"), "--listen", listener]
            haptera_command()
        else:
            asyncio.run(serve(folder, role))


if __name__ == "__main__":
    main(sys.argv[1:])
