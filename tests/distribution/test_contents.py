"""The distributions as files: their contents, that the same sources give the same bytes, and the checks of others."""

from __future__ import annotations

import configparser
import email
import os
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest

import haptera
from tests.distribution.environments import PROJECT
from tools.distributions import ROOT, Distributions, build, checks

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def wheel(packed: Distributions) -> zipfile.ZipFile:
    return zipfile.ZipFile(packed.wheel)


@pytest.fixture(scope="module")
def unpacked(packed: Distributions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the source distribution unpacks to."""
    folder = tmp_path_factory.mktemp("unpacked")
    # A process of its own: what unpacks safely without a warning differs between the Pythons, 3.11.2 to 3.14.
    subprocess.run([sys.executable, "-m", "tarfile", "-e", str(packed.sdist), str(folder)], check=True)
    return folder / f"haptera-{haptera.__version__}"


def about(wheel: zipfile.ZipFile, name: str) -> str:
    return wheel.read(f"haptera-{haptera.__version__}.dist-info/{name}").decode()


def test_the_wheel_has_every_file_of_the_package_and_none_beside(wheel: zipfile.ZipFile) -> None:
    source = ROOT / "src"
    files = {str(path.relative_to(source)) for path in (source / "haptera").rglob("*") if path.is_file()}
    package = {name for name in files if "__pycache__" not in name}
    beside = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
    assert set(wheel.namelist()) == package | {f"haptera-{haptera.__version__}.dist-info/{name}" for name in beside}
    # Among them what no module imports by its name: the marker of types, and the files that are generated.
    assert {"haptera/py.typed", "haptera/sync/database.py", "haptera/errors/code_table.py"} <= set(wheel.namelist())


def test_the_metadata_is_that_of_the_project(wheel: zipfile.ZipFile) -> None:
    metadata = email.message_from_string(about(wheel, "METADATA"))
    assert (metadata["Name"], metadata["Version"]) == ("haptera", haptera.__version__)
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata.get_all("Provides-Extra") == sorted(PROJECT["optional-dependencies"])
    required = {line.partition(";")[0].strip() for line in metadata.get_all("Requires-Dist") or () if ";" not in line}
    assert required == set(PROJECT["dependencies"])
    assert (metadata["License-Expression"], metadata["Description-Content-Type"]) == ("Apache-2.0", "text/markdown")
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text(encoding="utf-8").strip()
    assert "Tag: py3-none-any" in about(wheel, "WHEEL").splitlines()


def test_the_entry_points_lead_to_something(wheel: zipfile.ZipFile) -> None:
    points = configparser.ConfigParser()
    points.read_string(about(wheel, "entry_points.txt"))
    assert dict(points["console_scripts"]) == {"haptera": "haptera.cli.startup:main"}
    assert dict(points["pytest11"]) == {"haptera": "haptera.testing.plugin"}


def test_the_same_sources_give_the_same_bytes_elsewhere_and_with_other_settings(
    packed: Distributions, unpacked: Path, tmp_path: Path
) -> None:
    """A wheel that is made of the unpacked source distribution is the one that was published beside it."""
    for path in unpacked.rglob("*"):
        os.utime(path, (0, 1_000_000_000))
    script = (
        "import sys; from pathlib import Path; from tools.distributions import build; build(*map(Path, sys.argv[1:]))"
    )
    command = ["sh", "-c", 'umask 077; exec "$@"', "sh", sys.executable, "-c", script, str(tmp_path), str(unpacked)]
    settings = {"TZ": "Pacific/Kiritimati", "PYTHONHASHSEED": "7", "LC_ALL": "C"}
    subprocess.run(command, cwd=ROOT, env={**os.environ, **settings}, check=True)
    again = Distributions(*(tmp_path / path.name for path in packed))
    assert again.wheel.read_bytes() == packed.wheel.read_bytes()
    assert again.sdist.read_bytes() == packed.sdist.read_bytes()


def test_the_date_of_the_files_can_be_given(unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = build(tmp_path, unpacked)
    with zipfile.ZipFile(made.wheel) as wheel:
        assert {entry.date_time[:3] for entry in wheel.infolist()} == {(2023, 11, 14)}


def test_the_distributions_of_other_versions_are_removed_and_other_files_stay(unpacked: Path, tmp_path: Path) -> None:
    for name in ("haptera-0.0.1.tar.gz", "haptera-0.0.1-py3-none-any.whl", "notes.txt"):
        (tmp_path / name).write_text("")
    made = build(tmp_path, unpacked)
    assert {path.name for path in tmp_path.iterdir()} == {made.sdist.name, made.wheel.name, "notes.txt"}


@pytest.mark.dist
@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("name", ["twine", "check-wheel-contents"])
def test_a_check_of_others_finds_nothing(name: str, packed: Distributions) -> None:
    done = subprocess.run(checks(packed)[name], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.dist
@pytest.mark.usefixtures("registry")
def test_a_check_of_others_sees_what_is_wrong(packed: Distributions, tmp_path: Path) -> None:
    """A wheel whose description is not in the form that its metadata names, and with tests in it."""
    wrong = tmp_path / packed.wheel.name
    with zipfile.ZipFile(packed.wheel) as good, zipfile.ZipFile(wrong, "w") as bad:
        for entry in good.infolist():
            data = good.read(entry)
            if entry.filename.endswith("/METADATA"):
                data = data.replace(b"Description-Content-Type: text/markdown", b"Description-Content-Type: text/x-rst")
            if entry.filename.endswith("/RECORD"):
                data += b"tests/test_it.py,sha256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU,0\n"
            bad.writestr(entry, data)
        bad.writestr("tests/test_it.py", b"")
    commands = checks(Distributions(packed.sdist, wrong))
    for name, told in (("twine", "FAILED"), ("check-wheel-contents", "tests")):
        done = subprocess.run(commands[name], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert told in done.stdout + done.stderr
