"""How many frames a second the wire layer encodes and decodes in one thread: REQUESTs as `kv.set` sends them."""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import msgspec

from bench import report
from haptera.wire.decoder import FrameDecoder
from haptera.wire.frame import FrameType, encode_frame
from haptera.wire.metadata import encode_route

FRAMES: Final = 100
READ_SIZE: Final = 64 << 10
MAX_FRAME: Final = 1 << 20
VALUE_SIZES: Final = (16, 256, 4096, 65536)

# A connection's first frame has a limit of its own (section 4), so it is a small one.
FIRST_FRAME: Final = encode_frame(FrameType.PING, 0, 0, b"", bytes(8))


def measure(value_size: int, rounds: int, seconds: float) -> dict[str, Any]:
    """Frames and bytes per second each way, for one size of value."""
    metadata = encode_route("kv", "set")
    payload = msgspec.msgpack.encode(["bench/000001", bytes(value_size)])
    frames = [encode_frame(FrameType.REQUEST, 0, stream, metadata, payload) for stream in range(1, 2 * FRAMES, 2)]
    # As a transport delivers them: pieces that end anywhere.
    wire = FIRST_FRAME + b"".join(frames)
    pieces = [wire[at : at + READ_SIZE] for at in range(0, len(wire), READ_SIZE)]

    def encode() -> None:
        for stream in range(1, 2 * FRAMES, 2):
            encode_frame(FrameType.REQUEST, 0, stream, metadata, payload)

    def decode() -> None:
        decoder = FrameDecoder(MAX_FRAME)
        decoded = 0
        for piece in pieces:
            decoded += len(decoder.receive(piece))
            while decoder.more:
                decoded += len(decoder.receive(b""))
        assert decoded == FRAMES + 1, decoder.error

    result: dict[str, Any] = {"value_size": value_size, "frame_size": len(frames[0])}
    for name, work in (("encode", encode), ("decode", decode)):
        per_second = statistics.median(_per_second(work, seconds) for _ in range(rounds)) * FRAMES
        result[name] = {"frames_per_second": per_second, "bytes_per_second": per_second * len(frames[0])}
    return result


def _per_second(work: Callable[[], None], seconds: float) -> float:
    started = time.perf_counter()
    for done in itertools.count(1):
        work()
        taken = time.perf_counter() - started
        if taken >= seconds:
            return done / taken
    raise AssertionError("unreachable")


def main(argv: list[str] | None = None) -> int:
    """Run the measurement and print it; return the exit status."""
    parser = report.arguments(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each size [5]")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a round [0.5]")
    options = parser.parse_args(argv)
    results = [measure(size, options.rounds, options.seconds) for size in VALUE_SIZES]
    found = report.environment(options.dir)
    if options.json:
        report.emit({"environment": found, "results": results})
        return 0
    report.show_environment(found)
    show(results, options.rounds)
    return 0


def show(results: list[dict[str, Any]], rounds: int) -> None:
    """Print the table."""
    rows = [
        [
            f"{result['value_size']:,}",
            f"{result['encode']['frames_per_second']:,.0f}",
            f"{result['encode']['bytes_per_second'] / 1e6:,.0f}",
            f"{result['decode']['frames_per_second']:,.0f}",
            f"{result['decode']['bytes_per_second'] / 1e6:,.0f}",
        ]
        for result in results
    ]
    head = ["value bytes", "encode frames/s", "encode MB/s", "decode frames/s", "decode MB/s"]
    report.show("Frames", head, rows, [f"medians of {rounds} rounds, checksums included, one thread"])


if __name__ == "__main__":
    sys.exit(main())
