"""The weak settings that `haptera doctor` names: each is found where it is, and not where it is not."""

from __future__ import annotations

import os
import resource
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pytest

from haptera.node.config import NodeConfig
from haptera.node.listened import NO_DIALECTS
from haptera.node.weaknesses import (
    NAMES_MAX,
    Weakness,
    in_order,
    of_directory,
    of_process,
    of_secret_files,
    of_settings,
)
from haptera.peer import dial
from haptera.state import StateMachine
from haptera.state.access import StoredToken, StoredUser
from haptera.state.node_record import MaintenancePeriod
from haptera.testing import node
from tests.support.certificates import Authority, listening
from tests.support.verifiers import VERIFIER

if TYPE_CHECKING:
    from pathlib import Path

    from haptera.node.weaknesses import Severity

NOW_S = 1_700_000_000
DAY_S = 86_400
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high")
ROOT = StoredUser(VERIFIER, ("admin",))


class Looked:
    """A node as far as its settings are looked at."""

    def __init__(
        self,
        users: Any = None,
        tokens: Any = None,
        ends_at: int | None = None,
        revocations_end_at: int | None = None,
        trouble: str = "",
        damage: str = "",
        maintenance: MaintenancePeriod | None = None,
        **options: Any,
    ) -> None:
        self.dialects = NO_DIALECTS
        self.audit = SimpleNamespace(trouble=trouble, damage=damage)
        self.maintenance = maintenance
        self.config = NodeConfig(**options)
        self.access = StateMachine().access
        self.access.adopt(users={"root": ROOT} if users is None else users, tokens=tokens or {})
        self.certificate_ends_at = ends_at
        self.revocations_end_at = revocations_end_at

    def names(self) -> list[str]:
        return [found.name for found in of_settings(self, NOW_S)]  # type: ignore[arg-type]

    def finding(self, name: str) -> Weakness:
        (found,) = [each for each in of_settings(self, NOW_S) if each.name == name]  # type: ignore[arg-type]
        return found


def test_a_node_with_its_defaults_has_no_weak_setting() -> None:
    assert Looked().names() == []


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"no_auth": True}, ["no_authentication"]),
        ({"listen": ("haptera://0.0.0.0:1",), "insecure_listen": True}, ["insecure_listen"]),
        ({"listen": ("haptera+unix:///s",), "socket_mode": "666"}, ["socket_open_to_all"]),
        ({"listen": ("haptera+unix:///s",), "socket_mode": "660"}, []),
        ({"socket_mode": "666"}, []),
        ({"durability": "os"}, ["durability_os"]),
        ({"users": {}}, ["no_administrator"]),
        ({"users": {}, "no_auth": True}, ["no_authentication"]),
        ({"users": {"root": ROOT, "cert": StoredUser(None)}}, ["users_without_password"]),
        ({"users": {"root": ROOT, "cert": StoredUser(None, disabled=True)}}, []),
        ({"tokens": {"token:1": StoredToken(VERIFIER)}}, ["tokens_without_end"]),
        ({"tokens": {"token:1": StoredToken(VERIFIER, expires_at_ms=1)}}, []),
        ({"ends_at": NOW_S}, ["certificate_ended"]),
        ({"ends_at": NOW_S + 14 * DAY_S - 1}, ["certificate_ends_soon"]),
        ({"ends_at": NOW_S + 14 * DAY_S}, []),
        ({"revocations_end_at": NOW_S}, ["revocations_ended"]),
        ({"revocations_end_at": NOW_S + 14 * DAY_S - 1}, ["revocations_end_soon"]),
        ({"revocations_end_at": NOW_S + 14 * DAY_S}, []),
        ({"listen": ("hapteras://127.0.0.1:0?cert=c&key=k&tls_min=1.2",)}, ["old_tls"]),
        ({"listen": ("hapteras://127.0.0.1:0?cert=c&key=k&tls_min=1.3",)}, []),
        ({"damage": "its last lines were cut off"}, ["audit_log_changed"]),
        ({"trouble": "no space"}, ["audit_not_written"]),
        ({"maintenance": MaintenancePeriod("move", (NOW_S - DAY_S) * 1000)}, ["maintenance_lasts"]),
        ({"maintenance": MaintenancePeriod("move", (NOW_S - DAY_S) * 1000 + 1)}, []),
    ],
    ids=str,
)
def test_a_weak_setting_is_found(options: dict[str, Any], names: list[str]) -> None:
    assert Looked(**options).names() == names


def test_signed_frames_beyond_this_machine_are_not_hidden_and_those_of_tls_are(tmp_path: Path) -> None:
    key = tmp_path / "signing.key"
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    Authority(tmp_path).issue("server", "localhost")
    secure = "hapteras://0.0.0.0:0" + listening(tmp_path)
    signed = Looked(listen=("haptera://0.0.0.0:1", secure), signing_key_file=str(key))
    assert signed.finding("no_encryption").finding.startswith("haptera://0.0.0.0:1 is signed")
    assert Looked(listen=(secure,)).names() == []


def test_a_signing_key_that_makes_an_administrator_is_found() -> None:
    users = {"admin": ROOT, "app": StoredUser(VERIFIER)}
    assert Looked(users, signing_key_file="k").names() == ["signing_key_of_administrator"]
    assert Looked(users, signing_key_file="k", signing_user="app").names() == []


@pytest.mark.parametrize(("user", "lack"), [(None, "is not there"), (StoredUser(VERIFIER, disabled=True), "disabled")])
def test_a_signing_key_of_a_user_that_may_do_nothing_is_found(user: StoredUser | None, lack: str) -> None:
    users = {"root": ROOT} if user is None else {"root": ROOT, "admin": user}
    looked = Looked(users, signing_key_file="k")
    assert looked.names() == ["signing_user_unknown"]
    assert lack in looked.finding("signing_user_unknown").finding
    assert Looked(users, signing_key_file="k", no_auth=True).names() == ["no_authentication"]


def test_each_file_of_a_secret_that_others_may_read_is_found(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("signing", "master", "password", "tls", "url")]
    signing, master, password, tls, url = files
    config = NodeConfig(
        signing_key_file=signing,
        master_key_file=master,
        admin_password_file=password,
        listen=(f"hapteras://localhost:1?cert=c&key={tls}", f"haptera://localhost:2?signed=psk&key_file={url}"),
    )
    assert list(of_secret_files(config)) == []  # they are not there
    for file in files:
        descriptor = os.open(file, os.O_CREAT | os.O_WRONLY, 0o600)
        os.close(descriptor)
    assert list(of_secret_files(config)) == []
    for file in files:
        os.chmod(file, 0o640)
    assert [each.help for each in of_secret_files(config)] == [f"chmod 600 {file}" for file in files]


def test_many_names_are_counted() -> None:
    tokens = {f"token:{number}": StoredToken(VERIFIER) for number in range(NAMES_MAX + 3)}
    found = Looked(tokens=tokens).finding("tokens_without_end")
    assert found.finding.endswith("token:4 and 3 others")


def directory(path: Path) -> Path:
    made = path / "d"
    made.mkdir(mode=0o700)
    (made / "snapshots").mkdir()
    for name in ("keys", "node.toml"):
        (made / name).write_bytes(b"")
        (made / name).chmod(0o600)
    return made


def names_of(path: Path) -> list[str]:
    return [found.name for found in of_directory(str(path), NOW_S)]


def test_the_files_of_a_directory_are_looked_at(tmp_path: Path) -> None:
    made = directory(tmp_path)
    assert names_of(made) == []
    made.chmod(0o750)
    assert names_of(made) == ["directory_readable"]
    made.chmod(0o770)
    assert names_of(made) == ["directory_open_to_others"]
    made.chmod(0o700)
    (made / "keys").chmod(0o640)
    assert names_of(made) == ["key_file_open_to_others"]
    (made / "keys").chmod(0o600)
    (made / "master.key").write_bytes(b"")
    (made / "master.key").chmod(0o600)
    assert names_of(made) == ["master_key_beside_data"]
    (made / "master.key").rename(made / ("master.key." + "0" * 16))
    assert names_of(made) == ["unused_master_keys"]


def test_a_directory_of_another_user_and_one_in_a_folder_of_all_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = directory(tmp_path)
    tmp_path.chmod(0o777)
    assert names_of(made) == ["parent_open_to_all"]
    tmp_path.chmod(0o1777)
    assert names_of(made) == []
    monkeypatch.setattr(os, "geteuid", lambda: made.stat().st_uid + 1)
    assert names_of(made) == ["directory_of_another"]


def test_an_old_snapshot_is_found(tmp_path: Path) -> None:
    made = directory(tmp_path)
    file = made / "snapshots" / "0000000000000001.snap"
    file.write_bytes(b"")
    for age_s, found in ((28 * DAY_S, []), (29 * DAY_S, ["old_snapshot"])):
        os.utime(file, (NOW_S - age_s, NOW_S - age_s))
        assert names_of(made) == found


def test_the_process_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text("Filename Type\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (0, 5))
    assert list(of_process(str(swaps))) == []
    assert list(of_process(str(tmp_path / "none"))) == []
    swaps.write_text("Filename Type\n/dev/sda2 partition\n")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (5, 5))
    assert [found.name for found in of_process(str(swaps))] == ["runs_as_root", "core_dumps", "swap"]


def test_the_worst_comes_first() -> None:
    low, medium, high = (Weakness(severity, severity, "", "") for severity in SEVERITIES)
    assert in_order([low, high, medium]) == [high, medium, low]


async def test_a_node_answers_with_what_it_finds_in_itself_and_in_its_directory(tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d", durability="os") as url, dial(url) as peer:
        (tmp_path / "d").chmod(0o755)
        found = msgspec.msgpack.decode(await peer.call("server", "doctor", msgspec.msgpack.encode(())))
        names = [name for _, name, *_ in found]
        assert names[0] == "no_authentication"
        assert {"durability_os", "directory_readable", "master_key_beside_data"} < set(names)


async def test_a_directory_that_cannot_be_looked_into_is_a_finding(tmp_path: Path) -> None:
    async with node(data_dir=tmp_path / "d") as url, dial(url) as peer:
        (tmp_path / "d").rename(tmp_path / "e")
        found = msgspec.msgpack.decode(await peer.call("server", "doctor", msgspec.msgpack.encode(())))
        (tmp_path / "e").rename(tmp_path / "d")
        assert "directory_not_examined" in [name for _, name, *_ in found]
