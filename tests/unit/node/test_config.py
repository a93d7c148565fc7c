"""Configuration: where each option may come from, which one wins, and what is refused, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.errors import ConfigurationError
from haptera.node.config import OPTIONS, NodeConfig, load

if TYPE_CHECKING:
    from pathlib import Path


def test_without_anything_there_are_defaults() -> None:
    assert load({}, {}) == NodeConfig()
    assert NodeConfig().listen == ("haptera://127.0.0.1:7457",)
    assert (NodeConfig().data_dir, NodeConfig().durability) == ("./haptera-data", "sync")


def test_every_option_can_be_set_everywhere() -> None:
    assert set(OPTIONS) == set(NodeConfig.__struct_fields__)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "haptera.toml"
    path.write_text('data_dir = "file"\nlog_level = "error"\ndurability = "os"\ndrain_timeout = 2\n')
    environ = {"HAPTERA_DATA_DIR": "environment", "HAPTERA_LOG_LEVEL": "debug"}
    config = load({"config": str(path), "data_dir": "flag", "log_level": None}, environ)
    assert (config.data_dir, config.log_level, config.durability, config.drain_timeout) == ("flag", "debug", "os", 2.0)
    assert load({}, {"HAPTERA_CONFIG": str(path)}).data_dir == "file"


def test_several_addresses_may_be_given_in_each_source(tmp_path: Path) -> None:
    two = ("haptera://127.0.0.1:1", "haptera+unix:///tmp/x")
    path = tmp_path / "haptera.toml"
    path.write_text(f"listen = {list(two)}\n")
    assert load({"config": str(path)}, {}).listen == two
    assert load({}, {"HAPTERA_LISTEN": " ".join(two)}).listen == two
    assert load({}, {"HAPTERA_LISTEN": ",".join(two)}).listen == two
    assert load({"listen": two}, {}).listen == two


def test_an_empty_variable_is_not_set() -> None:
    assert load({}, {"HAPTERA_DATA_DIR": "", "HAPTERA_CONFIG": ""}) == NodeConfig()


def test_variables_of_others_are_left_alone() -> None:
    assert load({}, {"HAPTERA_URL": "haptera://x", "HAPTERA_PASSWORD": "secret"}) == NodeConfig()


WRONG: list[tuple[str, Any]] = [
    ("durability", "maybe"),
    ("durability", 1),
    ("log_level", "loud"),
    ("log_format", "xml"),
    ("data_dir", ""),
    ("data_dir", "a\0b"),
    ("data_dir", 5),
    ("listen", []),
    ("listen", [1]),
    ("listen", "http://127.0.0.1"),
    ("listen", "haptera://user:secret@127.0.0.1"),
    ("listen", "haptera://user@127.0.0.1"),
    ("listen", "haptera://:1"),
    ("listen", ["haptera://127.0.0.1:1"] * 65),
    ("drain_timeout", "soon"),
    ("drain_timeout", -1),
    ("drain_timeout", float("nan")),
    ("drain_timeout", "inf"),
    ("drain_timeout", True),
    ("segment_size", 1),
    ("segment_size", 1e6 + 0.5),
    ("segment_size", "64 MiB"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_value_is_refused_with_option_and_source(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=f"--{name.replace('_', '-')}: ") as caught:
        load({name: value}, {})
    assert "secret" not in str(caught.value)
    if isinstance(value, str) and value and "\0" not in value:
        with pytest.raises(ConfigurationError, match=f"HAPTERA_{name.upper()}: "):
            load({}, {f"HAPTERA_{name.upper()}": value})
    path = tmp_path / "haptera.toml"
    if "\0" not in str(value) and str(value) != "nan":
        path.write_bytes(name.encode() + b" = " + msgspec.json.encode(value))
        with pytest.raises(ConfigurationError, match=f"{name} in {path}: "):
            load({"config": str(path)}, {})


@pytest.mark.parametrize("value", [65536, "65536", "1_048_576"])
def test_a_size_is_a_number_or_its_text(value: Any) -> None:
    assert load({"segment_size": value}, {}).segment_size == int(value)


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "haptera.toml"
    for text in ("durabilty = 'sync'", "[node]\ndata_dir = 'x'", "config = 'other.toml'"):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match="no such option; the options are data_dir, drain_timeout"):
            load({"config": str(path)}, {})


def test_a_file_that_is_not_there_or_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        load({"config": str(tmp_path / "none.toml")}, {})
    for data in (b"= 1", b"\xff", b"#" * (1 << 21)):
        (tmp_path / "bad.toml").write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"bad\.toml: (not a TOML file|larger than)"):
            load({"config": str(tmp_path / "bad.toml")}, {})
