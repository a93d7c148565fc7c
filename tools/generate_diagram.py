"""Draws the states of a stream's two halves in ARCHITECTURE.md, from the law in haptera.connection.stream_law.

usage: python -m tools.generate_diagram            writes the file
       python -m tools.generate_diagram --check    writes nothing; ends with 1 if the file is not current
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path
from typing import Final

from haptera.connection.stream_law import LAW, HalfState
from haptera.wire.frame import CONTINUED, MORE, STREAMING, FrameType
from tools.written_part import WrittenPart

DOCUMENT: Final = Path(__file__).resolve().parent.parent / "ARCHITECTURE.md"
BEGIN: Final = "<!-- The law of a stream: drawn by tools/generate_diagram.py. -->"
END: Final = "<!-- End of the law. -->"
HALVES: Final = {"request half": HalfState.UNUSED, "answer half": HalfState.OPEN}


def diagram() -> str:
    """Return one diagram for each half, as Mermaid draws them."""
    lines = []
    for name, beginning in HALVES.items():
        lines += [
            f"The {name}:",
            "",
            "```mermaid",
            "stateDiagram-v2",
            "    direction LR",
            f"    [*] --> {beginning.name}",
        ]
        for state in reachable(beginning):
            lines += [f"    {state.name} --> {each.name}: {frames}" for each, frames in arrows(state).items()]
            if not LAW[state]:
                lines.append(f"    {state.name} --> [*]")
        lines += ["```", ""]
    return "\n".join(lines)


def reachable(beginning: HalfState) -> list[HalfState]:
    """Return the states that frames lead to, in the order in which they are found."""
    found = [beginning]
    for state in found:
        found += [each for each in dict.fromkeys(LAW[state].values()) if each not in found]
    return found


def arrows(state: HalfState) -> dict[HalfState, str]:
    """Return the states that follow one, with the frames that lead to each."""
    frames: defaultdict[HalfState, list[str]] = defaultdict(list)
    for (type_, flags), following in LAW[state].items():
        frames[following].append(named(type_, flags))
    return {following: ", ".join(names) for following, names in frames.items()}


def named(type_: FrameType, flags: int) -> str:
    """Return a frame's type with its flags, as the specification writes them."""
    flag_names = {STREAMING: "STREAMING", MORE: "MORE", CONTINUED: "CONTINUED"}
    return " ".join([type_.name, *(name for flag, name in flag_names.items() if flags & flag)])


PART: Final = WrittenPart(DOCUMENT, BEGIN, END, diagram)


if __name__ == "__main__":
    sys.exit(PART.main("Draws the law of a stream in ARCHITECTURE.md."))
