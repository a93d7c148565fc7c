"""The measures of the tree's shape find what they are for, and this tree keeps their bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools import shape
from tools.shape import ROOT, ROWS, Row, Tree, measure

if TYPE_CHECKING:
    from pathlib import Path


def tree(root: Path, **files: str) -> Tree:
    """A checkout of such files; ``peer__link`` is ``src/haptera/peer/link.py``."""
    for name, text in files.items():
        path = (root / "src" / "haptera" / name.replace("__", "/")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Tree(root)


@pytest.fixture(scope="module")
def this_tree() -> Tree:
    return Tree(ROOT)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_this_tree_keeps_the_bound(row: Row, this_tree: Tree) -> None:
    assert measure(row, this_tree) <= row.bound, f"make shape ARGS='--where \"{row.name}\"' shows the places"


def test_a_long_module_is_found_and_a_generated_one_is_not(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        wire__long="\n" * 401,
        wire__short='"""One.\n\nThree."""\n' + "\n" * 400,
        wire__made="# Generated.\n" + "\n" * 400,
    )
    assert shape.large_modules(found) == ["wire/long.py: 401"]


def test_a_long_function_is_counted_without_its_docstring(tmp_path: Path) -> None:
    body = "    x = 1\n" * 60
    found = tree(
        tmp_path,
        wire__a=f'def ok():\n    """{"line" * 9}\n\n    More.\n    """\n{body}',
        wire__b=f"def no():\n{body}    x = 1\n",
    )
    assert shape.large_functions(found) == ["wire/b.py:1 no: 61 lines, 1 paths"]


def test_a_function_with_many_paths_is_found(tmp_path: Path) -> None:
    ifs = "    if x: pass\n"
    found = tree(tmp_path, wire__a=f"def ok(x):\n{ifs * 14}", wire__b=f"def no(x):\n{ifs * 15}")
    assert shape.large_functions(found) == ["wire/b.py:1 no: 15 lines, 16 paths"]


def test_each_module_that_writes_a_state_is_found(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        connection__a="stream.request_state = 1\nhalf.state = 2\n",
        connection__b="half.state = 3\n",
        connection__c="print(half.state)\n",
        connection__d="class Connection:\n    def close(self):\n        self.state = 5\n",
        peer__d="self.state = 4\n",
    )
    assert shape.state_writers(found) == ["connection/a.py: 2 times", "connection/b.py: 1 times"]


def test_a_class_that_extends_another_of_its_layer_is_found_and_a_contract_is_none(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        peer__a="class Line: ...\nclass Link(Protocol):\n    pass\nclass Mine(Link): ...\n",
        peer__b="class Peer(Line):\n    pass\nclass Error(Exception): ...\n",
    )
    assert shape.extended_classes(found) == ["peer/b.py:1 Peer(Line)"]


def test_a_private_reach_is_found(tmp_path: Path) -> None:
    found = tree(
        tmp_path, peer__a="self._own = 1\npeer._other = 2\npeer.__class__\nself.peer._other\n", wire__b="x._y\n"
    )
    assert shape.private_reaches(found) == ["peer/a.py:2 peer._other", "peer/a.py:4 self.peer._other"]
    assert shape.private_reaches_per_1000(found) == 500


def test_an_import_past_a_face_is_found(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        wire____init__="",
        wire__frame="from haptera.wire.payload import x\n",
        peer__a="from haptera.wire import Frame\nfrom haptera.wire.frame import Frame\nfrom haptera.version import v\n",
    )
    assert shape.past_faces(found) == ["peer/a.py:2 haptera.wire.frame"]


def test_names_in_two_layers_are_found(tmp_path: Path) -> None:
    found = tree(
        tmp_path, state__scan="class Scan: ...\nclass _Own: ...\n", client__scan="class Scan: ...\nclass _Own: ...\n"
    )
    assert shape.doubled_classes(found) == ["Scan: client/scan.py, state/scan.py"]
    assert not shape.tripled_files(found)
    found = tree(tmp_path, cli__scan="")
    assert shape.tripled_files(found) == ["scan.py: cli/scan.py, client/scan.py, state/scan.py"]


def test_the_places_of_a_method_are_names_and_texts_of_it(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        state__a="class Rename: ...\n",
        client__b='call("rename", kv.rename)\n',
        storage__writer="os.rename(a, b)\n",
    )
    assert shape.files_of_rename(found) == ["client/b.py", "state/a.py"]
    assert len(shape.spread_of_rename(found)) == 3


def test_the_accent_is_counted_in_prose_and_not_in_code(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("Those are here. A peer reads them.\n\n```\nWhat is code is none.\n```\n")
    found = tree(
        tmp_path,
        wire__a='what = 1\n"""What this does here.\n\nA line, and whoever reads it."""\n# Who knows them all.\n',
    )
    assert len(shape.accent_beginnings(found)) == 3
    assert shape.accent_beginnings_percent(found) == 60
    assert shape.accent_per_1000(found) == pytest.approx(1000 * 4 / 21)


def test_a_row_beyond_its_bound_ends_with_1_and_shows_its_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path, wire__long="\n" * 401, __init__="__all__ = ['a']\n", peer____init__="\n")
    monkeypatch.setattr(shape, "ROOT", tmp_path)
    assert shape.main(["--where", "modules over"]) == 1
    shown = capsys.readouterr().out
    assert "<- beyond" in shown
    assert "wire/long.py: 401" in shown
    (tmp_path / "src/haptera/wire/long.py").write_text("")
    assert shape.main(["--where", "modules over"]) == 0
