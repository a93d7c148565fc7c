"""Runs fuzz targets for a time, and keeps what it finds.

usage: python -m fuzz.run [TARGET …] [--seconds N] [--work DIR] [--seed N] [--plain]

Without names: all targets, one after the other, each for its share of the time. With atheris installed (`make fuzz`
does that) coverage guides the search; without it, or with --plain, the corpus is mutated at random. New inputs and
findings are kept under --work (.fuzz by default): a finding as `crash-…` (or `timeout-…`, `oom-…`), which
`python -m fuzz.run TARGET FILE …` runs again alone. The exit status is not 0 if there was a finding.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import resource
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fuzz.targets import Target

ROOT = Path(__file__).resolve().parent
CORPUS = ROOT / "corpus"
WORK = ROOT.parent / ".fuzz"
#: An input that takes longer than this is a finding: the usual one takes a thousandth of it.
INPUT_TIMEOUT_S = 20
MEMORY_MAX_MB = 2048


def run_plain(name: str, target: Target, seconds: float, work: Path, seed: int) -> int:
    """Mutate the corpus at random for some seconds."""
    random = Random(seed)
    corpus = [path.read_bytes() for path in sorted((CORPUS / name).glob("*.bin"))]

    def mutate_bytes(data: bytes, size_max: int) -> bytes:
        from fuzz.mutators import mutate_plain

        return mutate_plain(data, size_max, random)

    count = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = random.choice(corpus)
        for _ in range(1 + int(random.expovariate(0.5))):
            data = target.mutate(data, target.size_max, random, mutate_bytes)
        count += 1
        try:
            target.check(data)
        except Exception:
            path = work / f"crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
            path.write_bytes(data)
            traceback.print_exc()
            print(f"{name}: input {count} of seed {seed} is a finding: {path}", file=sys.stderr)
            return 1
    print(f"{name}: {count} inputs in {seconds:.0f} s, seed {seed}")
    return 0


def run_atheris(name: str, seconds: float, work: Path, seed: int) -> int:
    """Let atheris search for some seconds. Does not return: its C++ part ends the process."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["haptera"], enable_loader_override=False):
        from fuzz.targets import TARGETS
    target = TARGETS[name]
    kept = work / "corpus"
    kept.mkdir(exist_ok=True)

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        def mutate_bytes(data: bytes, size_max: int) -> bytes:
            # libFuzzer's own mutations need a buffer to work in.
            return bytes(atheris.Mutate(data, max(1, size_max, len(data))))

        return target.mutate(data, size_max, Random(seed), mutate_bytes)

    arguments = [
        f"-max_total_time={max(1, round(seconds))}",
        f"-max_len={target.size_max}",
        f"-timeout={INPUT_TIMEOUT_S}",
        f"-rss_limit_mb={MEMORY_MAX_MB + _inherited_mb()}",
        f"-artifact_prefix={work}/",
        f"-seed={seed}",
        "-len_control=0",
        "-print_final_stats=1",
    ]
    command = [sys.argv[0], *arguments, str(kept), str(CORPUS / name)]
    atheris.Setup(command, target.check, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def _inherited_mb() -> int:
    """The peak of memory that libFuzzer takes for this process's own: an exec keeps that of the one before it."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def run_each(names: list[str], arguments: argparse.Namespace) -> int:
    """Run targets one after the other, each in a process of its own, and go on after a finding."""
    found = []
    for name in names:
        command = [sys.executable, "-m", "fuzz.run", name, "--seconds", str(arguments.seconds / len(names))]
        command += ["--work", str(arguments.work), "--seed", str(arguments.seed)]
        command += ["--plain"] if arguments.plain else []
        if subprocess.run(command, cwd=ROOT.parent, check=False).returncode:
            found.append(name)
    print("findings: " + ", ".join(found) if found else f"{len(names)} targets, no finding")
    return int(bool(found))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description="Run fuzz targets.")
    parser.add_argument("names", metavar="TARGET", nargs="*", help="a target, and behind it files to run alone")
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together (60)")
    parser.add_argument("--work", type=Path, default=WORK, help="where new inputs and crashes are kept")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plain", action="store_true", help="mutate at random even if atheris is installed")
    arguments = parser.parse_args()
    names: list[str] = arguments.names or sorted(path.name for path in CORPUS.iterdir())
    files = [Path(name) for name in names[1:] if not (CORPUS / name).is_dir()]
    if files:
        from fuzz.targets import TARGETS

        for file in files:
            TARGETS[names[0]].check(file.read_bytes())
            print(f"{names[0]}: {file}: nothing found")
        return 0
    if len(names) > 1:
        return run_each(names, arguments)
    (name,) = names
    if not (CORPUS / name).is_dir():
        parser.error(f"there is no target {name}")
    work: Path = arguments.work / name
    work.mkdir(parents=True, exist_ok=True)
    if not arguments.plain and importlib.util.find_spec("atheris") is not None:
        return run_atheris(name, arguments.seconds, work, arguments.seed)
    from fuzz.targets import TARGETS

    return run_plain(name, TARGETS[name], arguments.seconds, work, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
