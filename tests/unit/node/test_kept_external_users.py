"""The file of external users is read again: a good one counts, and a bad one leaves those of before."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import ConfigurationError
from haptera.node import kept_external_users
from haptera.node.kept_external_users import LOOK_S, KeptExternalUsers
from haptera.testing import virtual_clock

if TYPE_CHECKING:
    from pathlib import Path

ANN = '[uids]\n1000 = "ann"\n'
BOB = '[uids]\n1000 = "bobby"\n'


class Kept:
    """The users of a file, with the number of changes that were told."""

    def __init__(self, folder: Path, text: str = ANN) -> None:
        self.file = folder / "users.toml"
        self.file.write_text(text)
        self.changes = 0
        self.users = KeptExternalUsers(str(self.file), self._changed)

    def _changed(self) -> None:
        self.changes += 1

    @property
    def found(self) -> tuple[str | None, str | None, int]:
        return self.users.of_uid(1000), self.users.of_certificate(["x"]), self.changes


async def test_a_file_that_is_read_again_counts_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    kept = Kept(tmp_path)
    kept.file.write_text(BOB + '[certificates]\nx = "cert"\n')
    assert kept.found == ("ann", "x", 0)
    assert await kept.users.reload()
    assert kept.found == ("bobby", "cert", 1)
    assert [record.getMessage() for record in caplog.records] == ["external_users_loaded"]


@pytest.mark.parametrize("text", ["[uids", "[uids]\nann = 'x'\n", "[people]\n", None])
async def test_a_bad_file_leaves_the_users_of_before(
    text: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(tmp_path)
    if text is None:
        kept.file.unlink()
    else:
        kept.file.write_text(text)
    assert not await kept.users.reload()
    assert kept.found == ("ann", "x", 0)
    (record,) = caplog.records
    assert (record.getMessage(), record.levelname) == ("external_users_refused", "ERROR")
    assert str(kept.file) in record.__dict__["reason"]


async def test_a_fault_while_it_is_read_leaves_the_users_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept = Kept(tmp_path)

    def fail(path: str | None) -> Any:
        raise RuntimeError("a line of the file")

    monkeypatch.setattr(kept_external_users, "read_external_users", fail)
    assert not await kept.users.reload()
    assert kept.found == ("ann", "x", 0)
    assert caplog.records[0].__dict__["reason"] == "its reading failed: RuntimeError"


@virtual_clock
async def test_a_change_of_the_file_is_seen_within_ten_seconds(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    kept.users.start()
    await asyncio.sleep(LOOK_S + 0.1)
    assert kept.changes == 0
    kept.file.write_text(BOB)
    await asyncio.sleep(LOOK_S + 0.1)
    assert kept.found == ("bobby", "x", 1)
    kept.file.unlink()
    await asyncio.sleep(2 * LOOK_S)
    assert kept.found == ("bobby", "x", 1)
    kept.file.write_text(ANN)
    await asyncio.sleep(LOOK_S + 0.1)
    assert kept.found == ("ann", "x", 2)
    kept.users.stop()
    kept.file.write_text(BOB)
    await asyncio.sleep(3 * LOOK_S)
    assert kept.found == ("ann", "x", 2)


async def test_without_a_file_there_is_nothing_to_read() -> None:
    users = KeptExternalUsers(None, lambda: None)
    users.start()
    assert await users.reload()
    assert users.of_uid(0) is None
    users.stop()


def test_a_bad_file_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used"):
        KeptExternalUsers(str(tmp_path / "none.toml"), lambda: None)
