"""The wheel, and the environments that it is tried in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pytest

from tests.distribution.environments import CELLS, OWN_CELL, Cell, Environment, interpreter, uv
from tools.distributions import Distributions, build

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class Maker(Protocol):
    """Gives the environment with some extras in it, and with packages ``beside``; it is made when first asked for."""

    def __call__(self, *extras: str, beside: Sequence[str] = ()) -> Environment: ...


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Distributions:
    """The source distribution and the wheel of this tree."""
    return build(tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips a test where no package can be fetched, and says what the installer said."""
    uv("--version")
    nowhere = tmp_path_factory.mktemp("nowhere") / "packages"
    try:
        uv(
            "pip",
            "install",
            "--dry-run",
            "--quiet",
            "--target",
            str(nowhere),
            "--refresh-package",
            "msgspec",
            "msgspec",
        )
    except RuntimeError as error:
        *_, reason = str(error).splitlines()  # the innermost cause
        pytest.skip(f"the registry of packages cannot be reached: {reason.strip()}")


class Workshop:
    """All environments of a run."""

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._folder = folder
        self._wheel = wheel
        self._made: dict[tuple[Any, ...], Environment] = {}

    def environment(self, cell: Cell, extras: Sequence[str], beside: Sequence[str]) -> Environment:
        """Return one, made if there is none yet; skips the test where the Python is not installed."""
        key = (cell, *extras, None, *beside)
        if key not in self._made:
            python = interpreter(cell.python)
            if python is None:
                pytest.skip(f"there is no Python {cell.python} here")
            folder = self._folder / str(len(self._made))
            self._made[key] = Environment.make(folder, python, cell, self._wheel, extras, beside)
        return self._made[key]


@pytest.fixture(scope="session")
def workshop(registry: None, packed: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The environments of this run."""
    return Workshop(tmp_path_factory.mktemp("environments"), packed.wheel)


@pytest.fixture(
    params=[
        pytest.param(cell, id=str(cell), marks=pytest.mark.dist if cell == OWN_CELL else pytest.mark.long)
        for cell in CELLS
    ]
)
def cell(request: pytest.FixtureRequest) -> Cell:
    """Each Python with the newest and the oldest dependencies."""
    chosen: Cell = request.param
    return chosen


@pytest.fixture
def environment(cell: Cell, workshop: Workshop) -> Maker:
    """Environments of the cell."""

    def make(*extras: str, beside: Sequence[str] = ()) -> Environment:
        return workshop.environment(cell, extras, beside)

    return make
