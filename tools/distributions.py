"""Makes the source distribution and the wheel, the wheel from the source distribution, and has both checked.

usage: python -m tools.distributions [--out DIR]

The same sources give the same bytes, on each machine and at each time: each file in them has the date that
SOURCE_DATE_EPOCH gives, or else the one that hatchling always takes. The second is the default, because a wheel made of
an unpacked source distribution, which has no commit to take a date from, is then the same file too.

twine and check-wheel-contents run in an environment of their own, by requirements-dist.lock. They have to be fetched
once. Ends with 1 if one of them finds something, or cannot be fetched.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
LOCK: Final = ROOT / "requirements-dist.lock"
#: The installer of the environment, without the configuration of its user. It trusts the authorities of this machine,
#: as pip does.
UV: Final = (sys.executable, "-m", "uv", "--no-config", "--system-certs")


class Distributions(NamedTuple):
    """The two files of one version."""

    sdist: Path
    wheel: Path


def build(out: Path, sources: Path = ROOT) -> Distributions:
    """Make both in the folder ``out``, in place of the ones of other versions there.

    hatchling is the one of this environment, so that nothing is fetched. Raises ``CalledProcessError`` if it fails.
    """
    with tempfile.TemporaryDirectory() as made:
        command = [*UV, "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", made]
        subprocess.run([*command, str(sources)], check=True)
        (sdist,), (wheel,) = (list(Path(made).glob(pattern)) for pattern in ("*.tar.gz", "*.whl"))
        out.mkdir(parents=True, exist_ok=True)
        for pattern in ("haptera-*.tar.gz", "haptera-*.whl"):
            for other in out.glob(pattern):
                other.unlink()
        # Bytes, and no renaming: the folders may be on two disks.
        for path in (sdist, wheel):
            (out / path.name).write_bytes(path.read_bytes())
        return Distributions(out / sdist.name, out / wheel.name)


def checks(made: Distributions) -> dict[str, Sequence[str]]:
    """Return the commands that look at the files, by the names of their programs."""
    tool = (*UV, "run", "--quiet", "--no-project", "--isolated", "--python", sys.executable, "--with-requirements")
    return {
        # The metadata, and whether an index can show the README.
        "twine": [*tool, str(LOCK), "twine", "--no-color", "check", "--strict", *map(str, made)],
        # Files that do not belong in a wheel, and modules that it has twice or at a wrong place.
        "check-wheel-contents": [*tool, str(LOCK), "check-wheel-contents", str(made.wheel)],
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Make the files, and check them; return the exit status."""
    parser = argparse.ArgumentParser(description="Make the source distribution and the wheel, and have them checked.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="the folder of the two files [dist]")
    options = parser.parse_args(argv)
    try:
        made = build(options.out)
    except subprocess.CalledProcessError as error:
        print(f"the distributions could not be made: {error}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path} ({path.stat().st_size:,} bytes)")
    failed = [name for name, command in checks(made).items() if subprocess.run(command, check=False).returncode]
    for name in failed:
        print(f"{name} has found something, or could not be fetched: see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
