"""Files of TLS that are replaced while they are used, and the warning before a certificate ends."""

from __future__ import annotations

import logging
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from haptera.errors import ConfigurationError
from haptera.transport import tls_keeper
from haptera.transport.limits import TLS_CONTEXTS_MAX
from haptera.transport.tls_context import TlsFiles
from haptera.transport.tls_keeper import TlsKeeper, context_to_dial
from tests.support.certificates import DAY, Authority, client_files, server_files

if TYPE_CHECKING:
    from pathlib import Path

NOW = time.time()
DAY_S = DAY.total_seconds()


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    return authority


@pytest.fixture(autouse=True)
def every_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "haptera.transport")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    names = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return names


def test_a_certificate_that_was_replaced_is_read_at_the_next_look(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before = keeper.current
    keeper.look(NOW)
    assert keeper.current is before
    ours.issue("server", "localhost")
    keeper.look(NOW)
    assert keeper.current is not before
    assert keeper.current.certificate != before.certificate
    assert (lines(caplog), keeper.reloads, keeper.failed_reloads) == (["tls_files_loaded"], 1, 0)


def test_a_bad_file_leaves_the_old_context_and_is_told_once(ours: Authority, caplog: pytest.LogCaptureFixture) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before, key = keeper.current, (ours.folder / "server.key").read_bytes()
    (ours.folder / "server.key").write_text("nothing")
    for _ in range(3):
        keeper.look(NOW)
    (line,) = [record for record in caplog.records if record.getMessage() == "tls_files_refused"]
    assert f"{ours.folder}/server.key cannot be used" in vars(line)["reason"]
    assert keeper.current is before
    assert (keeper.reloads, keeper.failed_reloads) == (0, 1)
    (ours.folder / "server.key").write_bytes(key)
    keeper.look(NOW)
    assert (keeper.current is before, keeper.reloads) == (False, 1)


def test_authorities_with_a_comment_of_any_bytes_are_read_at_the_next_look(ours: Authority) -> None:
    keeper = TlsKeeper(server_files(ours.folder, client_ca=ours.path))
    ours.path.write_bytes("# Főtanúsítvány\n".encode() + ours.path.read_bytes())
    keeper.look(NOW)
    assert (keeper.reloads, keeper.failed_reloads) == (1, 0)


def test_a_reading_that_fails_for_any_reason_leaves_the_old_context_and_tells_no_content(
    ours: Authority, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before, key = keeper.current, (ours.folder / "server.key").read_text()

    def fail(files: TlsFiles) -> None:
        raise RuntimeError(key)

    monkeypatch.setattr(tls_keeper, "load_context", fail)
    assert not keeper.reload(NOW)
    (line,) = caplog.records
    assert (line.getMessage(), vars(line)["reason"]) == ("tls_files_refused", "their reading failed: RuntimeError")
    assert line.exc_info is None
    assert keeper.current is before
    assert keeper.failed_reloads == 1


def test_two_files_that_are_replaced_one_after_the_other_end_as_the_new_pair(ours: Authority) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before = keeper.current
    old = {name: (ours.folder / name).read_bytes() for name in ("server.pem", "server.key")}
    ours.issue("server", "localhost")
    new = (ours.folder / "server.key").read_bytes()
    (ours.folder / "server.key").write_bytes(old["server.key"])
    keeper.look(NOW)
    assert keeper.current is before  # the certificate is new and the key is old
    (ours.folder / "server.key").write_bytes(new)
    keeper.look(NOW)
    assert keeper.current.certificate != before.certificate


def test_a_file_that_is_gone_leaves_the_old_context(ours: Authority) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before = keeper.current
    os.unlink(ours.folder / "server.pem")
    keeper.look(NOW)
    assert keeper.current is before
    assert not keeper.reload(NOW)


def test_a_hang_up_reads_files_again_that_have_not_changed(ours: Authority) -> None:
    keeper = TlsKeeper(server_files(ours.folder))
    before = keeper.current
    assert keeper.reload(NOW)
    assert keeper.current is not before


@pytest.mark.parametrize(
    ("ends", "now", "a_day_later"),
    [
        (14.6 * DAY, [], ["certificate_ends_soon"]),
        (13 * DAY, ["certificate_ends_soon"], ["certificate_ends_soon"]),
        (-timedelta(hours=2), ["certificate_ended"], ["certificate_ended"]),
    ],
)
def test_the_end_of_a_certificate_is_announced_14_days_before(
    ours: Authority, caplog: pytest.LogCaptureFixture, ends: timedelta, now: list[str], a_day_later: list[str]
) -> None:
    ours.issue("server", "localhost", begins=-20 * DAY, ends=ends)
    keeper = TlsKeeper(server_files(ours.folder))
    keeper.look(NOW)
    assert lines(caplog) == now
    keeper.look(NOW + DAY_S / 2)
    assert lines(caplog) == []
    keeper.look(NOW + DAY_S)
    assert lines(caplog) == a_day_later


def test_the_end_of_a_list_of_revoked_certificates_is_announced(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    path = ours.revoke("all", due=3 * DAY)
    keeper = TlsKeeper(server_files(ours.folder, client_ca=ours.path, revoked=str(path)))
    keeper.look(NOW)
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["file"]) == ("revocations_end_soon", str(path))
    caplog.clear()
    keeper.look(NOW + 4 * DAY_S)
    assert lines(caplog) == ["revocations_ended"]


def test_a_key_that_others_may_read_is_warned_of_at_each_reading(
    ours: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    (ours.folder / "server.key").chmod(0o644)
    keeper = TlsKeeper(server_files(ours.folder))
    assert lines(caplog) == ["key_file_open_to_others"]
    keeper.reload(NOW)
    assert "key_file_open_to_others" in lines(caplog)


def test_diallers_with_the_same_files_share_a_context(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: Any = type(tls_keeper._dialling)()
    monkeypatch.setattr(tls_keeper, "_dialling", kept)
    first = context_to_dial(client_files(ours.path), NOW)
    assert context_to_dial(client_files(ours.path), NOW) is first
    for number in range(TLS_CONTEXTS_MAX):
        context_to_dial(client_files(ours.path, alpn=str(number)), NOW)
    assert len(kept) == TLS_CONTEXTS_MAX
    assert context_to_dial(client_files(ours.path), NOW) is not first


def test_a_dialler_whose_files_are_bad_from_the_beginning_is_told(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="No such file"):
            context_to_dial(TlsFiles(listening=False, authorities=str(tmp_path / "none"), alpn="haptera/1"), NOW)
