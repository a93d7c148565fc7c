"""`haptera doctor`: weak settings of a node and of its directory, named with the next step."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from haptera.testing import node_in_thread
from tests.integration.commands import run
from tests.support.certificates import Authority, listening

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
    assert ended.code == 2
    assert f"{tmp_path / 'none'}: No such file or directory" in ended.err


def test_the_help_has_every_exit_code() -> None:
    told = " ".join(run("doctor", "--help").text.split())
    for part in (
        "0 nothing was found; 1 something was; 2 usage, or there is no such directory; 3 ",
        "14 the directory",
    ):
        assert part in told


def test_the_secret_files_of_a_node_that_others_may_read_are_named(tmp_path: Path) -> None:
    Authority(tmp_path).issue("server", "localhost", "127.0.0.1")
    key = tmp_path / "server.key"
    key.chmod(0o644)
    with node_in_thread(
        data_dir=tmp_path / "d", listen=("haptera://127.0.0.1:0", "hapteras://127.0.0.1:0" + listening(tmp_path))
    ) as url:
        found = json.loads(run("doctor", "--url", url, "--json").out)["findings"]
        assert [each["help"] for each in found if each["name"] == "key_file_open_to_others"] == [f"chmod 600 {key}"]
        key.chmod(0o600)
        found = json.loads(run("doctor", "--url", url, "--json").out)["findings"]
        assert not [each for each in found if each["name"] == "key_file_open_to_others"]


def test_an_audit_log_that_was_changed_while_the_node_was_stopped_is_a_finding_and_a_reason_of_the_health(
    tmp_path: Path,
) -> None:
    data = tmp_path / "d"
    with node_in_thread(data_dir=data) as url:
        assert run("snapshot", "--url", url).code == 0
        assert "health_reason" not in run("status", "--url", url).text
    (file,) = (data / "audit").iterdir()
    file.write_bytes(file.read_bytes().replace(b'"server.snapshot"', b'"server.snapshut"', 1))
    with node_in_thread(data_dir=data) as url:
        status = json.loads(run("status", "--url", url, "--json").out)
        assert (status["health"], "was changed" in status["health_reason"]) == ("ok", True)
        assert "haptera audit verify" in status["health_help"]
        found = json.loads(run("doctor", "--url", url, "--json").out)["findings"]
        assert ["high", "audit_log_changed"] in [[each["severity"], each["name"]] for each in found]
    assert run("audit", "verify", str(data)).code == 11


def test_a_node_that_is_not_there_is_no_finding(tmp_path: Path) -> None:
    assert run("doctor", "--url", f"haptera+unix://{tmp_path}/none.sock", "--timeout", "1").code == 3
