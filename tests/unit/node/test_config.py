"""Configuration: where each option may come from, which one wins, and what is refused, by name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from haptera.connection import Config
from haptera.connection.config import PING_INTERVAL_MS
from haptera.errors import ConfigurationError
from haptera.node import listening
from haptera.node.config import OPTIONS, NodeConfig
from haptera.node.config_sources import load, misspelt
from haptera.peer import limits as peer_limits
from haptera.transport import CONNECTIONS_MAX, HALF_OPEN_MAX
from haptera.wire.payload import Limits
from tools import generate_configuration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_without_anything_there_are_defaults() -> None:
    assert load({}, {}) == NodeConfig()
    assert NodeConfig().listen == ("haptera://127.0.0.1:7457",)
    assert (NodeConfig().data_dir, NodeConfig().durability) == ("./haptera-data", "sync")


def test_every_option_can_be_set_everywhere() -> None:
    assert list(OPTIONS) == list(NodeConfig.__struct_fields__)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_default_is_a_value_that_may_be_given(name: str) -> None:
    default = getattr(NodeConfig(), name)
    if default is not None:
        assert OPTIONS[name](default) == default


def test_the_defaults_are_those_of_the_layers_below() -> None:
    config, connection = NodeConfig(), Config(entropy=bytes)
    assert (config.max_connections, config.max_half_open) == (CONNECTIONS_MAX, HALF_OPEN_MAX)
    assert (config.write_timeout, config.drain_timeout) == (peer_limits.WRITE_TIMEOUT_S, peer_limits.DRAIN_S)
    settings = listening.settings(config)
    given = {name: settings[name] for name in settings if name in Config.__struct_fields__ and name != "compression"}
    assert given.pop("ping_interval_ms") == PING_INTERVAL_MS  # a connection may leave it to the other side
    assert given == {name: getattr(connection, name) for name in given}


def test_every_option_of_connections_reaches_the_listener() -> None:
    changed: dict[str, Any] = {
        "compression": "none",
        "max_connections": 7,
        "max_half_open": 8,
        "handshake_timeout": 1.5,
        "ping_interval": 2.5,
        "idle_timeout": 3.5,
        "write_timeout": 4.5,
        "frame_timeout": 5.5,
        "message_timeout": 6.5,
        "max_frame": 1 << 17,
        "max_message": 1 << 18,
        "max_streams": 99,
        "stream_window": 1 << 19,
        "connection_window": 1 << 20,
        "connection_budget": 1 << 21,
        "process_budget": 1 << 22,
        "flood_burst": 9,
        "flood_rate": 10.5,
    }
    assert listening.settings(NodeConfig(**changed)) == {
        "limits": Limits(
            max_frame=1 << 17, max_message=1 << 18, max_streams=99, stream_window=1 << 19, connection_window=1 << 20
        ),
        "compression": False,
        "max_connections": 7,
        "max_half_open": 8,
        "handshake_timeout_s": 1.5,
        "ping_interval_ms": 2500,
        "idle_timeout_s": 3.5,
        "write_timeout_s": 4.5,
        "frame_timeout_s": 5.5,
        "message_timeout_s": 6.5,
        "budget": 1 << 21,
        "idle_frames_burst": 9,
        "idle_frames_per_s": 10.5,
    }
    assert listening.settings(NodeConfig(ping_interval=0.0))["ping_interval_ms"] == 0
    assert listening.settings(NodeConfig(idle_timeout=0.0))["idle_timeout_s"] is None
    assert listening.settings(NodeConfig())["compression"] is None
    assert listening.settings(NodeConfig(compression="zstd"))["compression"] is True
    named = {name for name, option in OPTIONS.items() if option.group in {"Connections", "Limits of a peer"}}
    assert named <= set(changed)


def test_a_message_that_the_budget_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_message is 16777217, more than a quarter of connection_budget"):
        load({"max_message": 16 * 1024 * 1024 + 1}, {})
    assert load({"max_message": 2**25, "connection_budget": 2**27}, {}).max_message == 2**25


def test_the_budget_of_the_process_is_no_less_than_that_of_a_connection() -> None:
    with pytest.raises(ConfigurationError, match="connection_budget is 67108864, more than process_budget, 67108863"):
        load({"process_budget": 64 * 1024 * 1024 - 1}, {})
    assert load({"process_budget": 64 * 1024 * 1024}, {}).process_budget == 64 * 1024 * 1024
    assert load({"connection_budget": 2**31, "process_budget": 2**32}, {}).connection_budget == 2**31


def test_options_that_do_not_go_together_are_named_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "haptera.toml"
    path.write_text("connection_budget = 1048576\n")
    of_the_file = f"connection_budget in {path}"
    large = {"HAPTERA_MAX_MESSAGE": "33554432"}
    cases: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"max_message": 2**25}, {}, "--max-message and the default of connection_budget"),
        ({"max_message": "33554432", "config": str(path)}, {}, f"--max-message and {of_the_file}"),
        ({}, large, "HAPTERA_MAX_MESSAGE and the default of connection_budget"),
        ({"config": str(path)}, {}, f"the default of max_message and {of_the_file}"),
        (
            {"config": str(path), "max_message": 2**18, "process_budget": 2**19},
            {},
            f"{of_the_file} and --process-budget",
        ),
        ({"process_budget": 2**20}, {}, "the default of connection_budget and --process-budget"),
    ]
    for flags, environ, places in cases:
        with pytest.raises(ConfigurationError) as caught:
            load(flags, environ)
        assert str(caught.value).endswith(f" ({places})")


KEY_FILE_FAULTS = [
    (None, "No such file or directory; a key has 32 to 4096 bytes"),
    (b"too short", "it is too short; a key has 32 to 4096 bytes"),
]


@pytest.mark.parametrize(("content", "reason"), KEY_FILE_FAULTS)
def test_a_key_file_that_cannot_be_used_is_named_with_its_place(
    content: bytes | None, reason: str, tmp_path: Path
) -> None:
    key, path = tmp_path / "signing.key", tmp_path / "haptera.toml"
    path.write_text(f'signing_key_file = "{key}"\n')
    if content is not None:
        key.write_bytes(content)
    cases: list[tuple[dict[str, Any], dict[str, str], str]] = [
        ({"signing_key_file": str(key)}, {}, "--signing-key-file"),
        ({}, {"HAPTERA_SIGNING_KEY_FILE": str(key)}, "HAPTERA_SIGNING_KEY_FILE"),
        ({"config": str(path)}, {}, f"signing_key_file in {path}"),
    ]
    for flags, environ, place in cases:
        with pytest.raises(ConfigurationError) as caught:
            load(flags, environ)
        assert str(caught.value) == f"{place}: the key file {key} cannot be used: {reason}"


def test_of_key_files_only_the_one_that_wins_is_looked_at(tmp_path: Path) -> None:
    key, path = tmp_path / "signing.key", tmp_path / "haptera.toml"
    path.write_text('signing_key_file = "/nowhere/signing.key"\n')
    key.write_bytes(bytes(32))
    flags = {"config": str(path), "signing_key_file": str(key)}
    assert load(flags, {"HAPTERA_SIGNING_KEY_FILE": "/nowhere/else"}).signing_key_file == str(key)


def test_a_variable_that_is_close_to_an_options_is_found() -> None:
    environ = {
        "HAPTERA_MAX_CONECTIONS": "5",
        "HAPTERA_LOGLEVEL": "debug",
        "HAPTERA_DATADIR": "/x",
        "HAPTERA_LISTENER": "",
        "haptera_listn": "x",
    }
    assert dict(misspelt(environ)) == {
        "HAPTERA_MAX_CONECTIONS": "HAPTERA_MAX_CONNECTIONS",
        "HAPTERA_LOGLEVEL": "HAPTERA_LOG_LEVEL",
        "HAPTERA_DATADIR": "HAPTERA_DATA_DIR",
    }


def test_variables_of_others_are_not_taken_for_misspelt() -> None:
    others = (
        "URL",
        "CONFIG",
        "PASSWORD",
        "IMAGE",
        "PORT",
        "SERVICE_HOST",
        "PORT_7457_TCP",
        "VERSION",
        "HOME",
        "TOKEN",
    )
    environ = {f"HAPTERA_{name}": "x" for name in (*others, *(name.upper() for name in OPTIONS))}
    assert dict(misspelt({**environ, "MAX_CONECTIONS": "5", "PATH": "/bin"})) == {}


def test_the_documentation_has_every_option_as_it_is() -> None:
    text = generate_configuration.DOCUMENT.read_text(encoding="utf-8")
    assert generate_configuration.PART.generated(text) == text, "make generate"


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
    ("memory_max", 10),
    ("memory_max", (1 << 20) - 1),
    ("compression", "gzip"),
    ("ping_interval", 0.0001),
    ("handshake_timeout", 0),
    ("max_connections", 0),
    ("max_frame", 1024),
    ("max_streams", 65536),
    ("flood_rate", 0),
    ("signing_key_file", ""),
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
        with pytest.raises(ConfigurationError, match=r"no such option; (did you mean durability|haptera serve --help)"):
            load({"config": str(path)}, {})


def test_a_file_that_is_not_there_or_not_toml_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.toml: No such file"):
        load({"config": str(tmp_path / "none.toml")}, {})
    for data in (b"= 1", b"\xff", b"#" * (1 << 21)):
        (tmp_path / "bad.toml").write_bytes(data)
        with pytest.raises(ConfigurationError, match=r"bad\.toml: (not a TOML file|larger than)"):
            load({"config": str(tmp_path / "bad.toml")}, {})


@pytest.mark.parametrize(("kind", "make"), [("pipe", os.mkfifo), ("directory", os.mkdir)])
def test_a_configuration_that_is_no_regular_file_is_refused_and_not_waited_for(
    tmp_path: Path, kind: str, make: Callable[[Path], None]
) -> None:
    """Trap: a pipe in a file's place hangs the start."""
    make(tmp_path / "haptera.toml")
    with pytest.raises(ConfigurationError, match=rf"haptera\.toml: it is a {kind} and no regular file"):
        load({"config": str(tmp_path / "haptera.toml")}, {})
