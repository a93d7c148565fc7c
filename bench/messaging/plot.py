"""What a run found, as a picture: calls, streams, frames, bytes on the wire, idle connections.

``python -m bench.messaging.plot RESULT.json FILE`` draws what ``python -m bench.messaging --json`` wrote.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl

mpl.use("svg")

from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS: Final = ("#0b6e4f", "#73c2a5", "#8d99ae", "#c08497", "#e09f3e")
PAYLOAD: Final = "256 B"


def draw(result: dict[str, Any], file: Path) -> None:
    """Draw a run into ``file``, whose suffix says in which format."""
    # Text stays text, and a run drawn twice is the same file.
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "haptera", "font.size": 9})
    figure = plt.figure(figsize=(10, 7.5), layout="constrained")
    grid = figure.add_gridspec(2, 3, height_ratios=(4, 3))
    _calls(figure.add_subplot(grid[0, :2]), result)
    _streams(figure.add_subplot(grid[0, 2]), result)
    _frames(figure.add_subplot(grid[1, 0]), result)
    _wire(figure.add_subplot(grid[1, 1]), result)
    _idle(figure.add_subplot(grid[1, 2]), result)
    environment = result["environment"]
    figure.supxlabel(
        f"{environment['cpu']}, {environment['cores']} cores, Python {environment['python']}, "
        f"TCP on loopback, one connection, medians of {result['rounds']} alternating rounds; {_day(result)}\n"
        f"python -m bench.messaging --json > run.json && python -m bench.messaging.plot run.json {file}",
        fontsize=7,
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def _calls(axes: Axes, result: dict[str, Any]) -> None:
    workloads = {
        name.partition(", ")[2]: found
        for name, found in result["results"].items()
        if name.startswith(f"echo {PAYLOAD}")
    }
    libraries = list(next(iter(workloads.values())))
    width = 0.8 / len(libraries)
    for number, library in enumerate(libraries):
        values = [found[library]["calls_per_second"] for found in workloads.values()]
        places = [place + number * width for place in range(len(values))]
        bars = axes.bar(places, values, width, label=library, color=COLOURS[number % len(COLOURS)])
        axes.bar_label(bars, labels=[f"{value / 1000:.1f}k" for value in values], fontsize=6)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(workloads))], list(workloads))
    axes.set_ylabel("calls per second")
    axes.set_title(f"Echo of {PAYLOAD}")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _streams(axes: Axes, result: dict[str, Any]) -> None:
    found = result["results"]["stream of 64 KiB items"]
    values = [one["mb_per_second"] for one in found.values()]
    colours = [COLOURS[number % len(COLOURS)] for number in range(len(values))]
    bars = axes.barh(list(found)[::-1], values[::-1], color=colours[::-1])
    axes.bar_label(bars, fmt="%.0f", fontsize=7, padding=2)
    axes.set_xlabel("MB/s")
    axes.set_title("Stream of 64 KiB items")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.2)


def _frames(axes: Axes, result: dict[str, Any]) -> None:
    frames = result["frames"]
    for number, way in enumerate(("encode", "decode")):
        values = [found[way]["frames_per_second"] / 1e6 for found in frames]
        places = [place + 0.4 * number for place in range(len(values))]
        bars = axes.bar(places, values, 0.4, label=way, color=COLOURS[number])
        axes.bar_label(bars, fmt="%.2f", fontsize=6)
    axes.set_xticks([place + 0.2 for place in range(len(frames))], [f"{found['value_size']:,}" for found in frames])
    axes.set_xlabel("bytes of the value")
    axes.set_ylabel("million frames per second")
    axes.set_title("Frames of haptera, one thread")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _wire(axes: Axes, result: dict[str, Any]) -> None:
    found = {name: one["1"] for name, one in result["wire_bytes_per_call"].items()}
    _pair(axes, found, {"up": "there", "down": "back"}, "%.0f")
    axes.set_xlabel("bytes")
    axes.set_title("On the wire beyond a call's payload")


def _idle(axes: Axes, result: dict[str, Any]) -> None:
    idle = result["idle"]
    _pair(axes, idle["of"], {"server_kib_per_connection": "server", "client_kib_per_connection": "client"}, "%.1f")
    processor = [one[f"{side}_processor_percent"] for one in idle["of"].values() for side in ("server", "client")]
    axes.set_xlabel(f"KiB each; processor {min(processor):.1f} to {max(processor):.1f} %")
    axes.set_title(f"{idle['connections']:,} idle connections")


def _pair(axes: Axes, found: dict[str, Any], figures: dict[str, str], shown: str) -> None:
    """Draw two figures of each library, one bar above the other."""
    names = list(found)[::-1]
    for number, (figure, label) in enumerate(figures.items()):
        places = [place + 0.2 - 0.4 * number for place in range(len(names))]
        bars = axes.barh(places, [found[name][figure] for name in names], 0.4, label=label, color=COLOURS[number])
        axes.bar_label(bars, fmt=shown, fontsize=7, padding=2)
    axes.set_yticks(range(len(names)), names)
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.2)


def _day(result: dict[str, Any]) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(result["ended_at_s"]))


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_bytes()), Path(sys.argv[2]))
