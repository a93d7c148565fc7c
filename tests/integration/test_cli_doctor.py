"""`haptera doctor`: weak settings of a node and of its directory, named with the next step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from haptera.testing import node_in_thread
from tests.integration.commands import run

if TYPE_CHECKING:
    from pathlib import Path


def test_the_settings_of_a_node_are_named_and_the_exit_code_says_that_there_are_some(tmp_path: Path) -> None:
    with node_in_thread(data_dir=tmp_path / "d", durability="os") as url:
        ended = run("doctor", "--url", url)
        document = json.loads(run("doctor", "--url", url, "--json").out)
        drawn = run("doctor", "--url", url, terminal=True).text
    rows = [line.split("\t") for line in ended.text.splitlines()]
    assert (ended.code, ended.err) == (1, "")
    assert all(len(row) == 4 for row in rows)
    assert ["high", "no_authentication"] in [row[:2] for row in rows]
    assert [list(each.values()) for each in document["findings"]] == rows
    assert list(document["findings"][0]) == ["severity", "name", "finding", "help"]
    assert "next step" in drawn
    assert "durability sync" in drawn


def test_a_directory_is_looked_at_without_a_node(tmp_path: Path) -> None:
    path = tmp_path / "d"
    path.mkdir(mode=0o700)
    clean = run("doctor", "--data-dir", str(path))
    assert (clean.code, clean.text) == (0, "nothing was found\n")
    path.chmod(0o777)
    ended = run("doctor", "--data-dir", str(path), "--json")
    assert ended.code == 1
    assert [each["name"] for each in json.loads(ended.out)["findings"]] == ["directory_open_to_others"]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    ended = run("doctor", "--data-dir", str(tmp_path / "none"))
    assert ended.code not in (0, 1)
    assert f"{tmp_path / 'none'}: No such file or directory" in ended.err


def test_a_node_that_is_not_there_is_no_finding(tmp_path: Path) -> None:
    assert run("doctor", "--url", f"haptera+unix://{tmp_path}/none.sock", "--timeout", "1").code == 3
