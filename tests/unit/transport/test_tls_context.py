"""The files of TLS: refused in words where they cannot be used, and never with a part of a key."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest

from haptera.errors import ConfigurationError
from haptera.transport import tls_context
from haptera.transport.certificate import certificates, first_certificate
from haptera.transport.limits import TLS_FILE_SIZE_MAX
from haptera.transport.tls_context import TlsFiles, load_context
from tests.support.certificates import Authority, authority, client_files, server_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    authority = Authority(tmp_path)
    authority.issue("server", "localhost")
    authority.issue("client")
    return authority


def reason(files: TlsFiles) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_context(files)
    return str(caught.value)


def test_a_listener_takes_tls_1_3_alone_unless_1_2_is_asked_for(ours: Authority) -> None:
    for files in (server_files(ours.folder), client_files(ours.path)):
        assert load_context(files).context.minimum_version is ssl.TLSVersion.TLSv1_3
    older = load_context(server_files(ours.folder, oldest_version="1.2")).context
    assert older.minimum_version is ssl.TLSVersion.TLSv1_2
    names = [cipher["name"] for cipher in older.get_ciphers()]
    assert all(name.startswith(("TLS_", "ECDHE-")) and ("GCM" in name or "POLY1305" in name) for name in names)


def test_a_dialling_side_verifies_by_default_and_by_the_name_alone(ours: Authority) -> None:
    for files in (client_files(ours.path), TlsFiles(listening=False, alpn="haptera/1")):
        context = load_context(files).context
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert not context.hostname_checks_common_name


def test_a_listener_asks_for_certificates_where_it_has_an_authority(ours: Authority) -> None:
    assert load_context(server_files(ours.folder)).context.verify_mode is ssl.CERT_NONE
    assert load_context(server_files(ours.folder, client_ca=ours.path)).context.verify_mode is ssl.CERT_REQUIRED


def test_authorities_may_have_comments_of_any_bytes_about_them(ours: Authority) -> None:
    comments = "# Kiadó: NetLock Arany Főtanúsítvány\n".encode(), b"\xff\x00\r\n"
    ours.path.write_bytes(b"".join(comment + ours.ca.cert_pem.bytes() for comment in comments))
    for files in (client_files(ours.path), server_files(ours.folder, client_ca=ours.path)):
        assert load_context(files).context.get_ca_certs(binary_form=True) == certificates(ours.ca.cert_pem.bytes())


def test_of_authorities_nothing_is_trusted_whose_block_does_not_begin_a_line(ours: Authority) -> None:
    ours.path.write_bytes(b"# " + authority("theirs").cert_pem.bytes() + ours.ca.cert_pem.bytes())
    trusted = load_context(client_files(ours.path)).context.get_ca_certs(binary_form=True)
    assert trusted == certificates(ours.ca.cert_pem.bytes())


def test_an_authority_that_is_damaged_is_refused_behind_a_good_one(ours: Authority) -> None:
    for block in (b"MAA=\n", b""):
        damaged = b"-----BEGIN CERTIFICATE-----\n" + block + b"-----END CERTIFICATE-----\n"
        ours.path.write_bytes(ours.ca.cert_pem.bytes() + damaged + ours.ca.cert_pem.bytes())
        assert f"the file of certificate authorities {ours.path} cannot be used: " in reason(client_files(ours.path))


@pytest.mark.parametrize("kind", [b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"])
@pytest.mark.parametrize("behind", [False, True])
def test_a_list_of_revoked_certificates_adds_no_authority(ours: Authority, kind: bytes, behind: bool) -> None:
    revoked, theirs = ours.revoke("all"), authority("theirs").cert_pem.bytes().replace(b" CERTIFICATE", b" " + kind)
    parts = [theirs, revoked.read_bytes()]
    revoked.write_bytes(b"\n".join(reversed(parts) if behind else parts))
    assert reason(server_files(ours.folder, client_ca=ours.path, revoked=str(revoked))) == (
        f"the list of revoked certificates {revoked} cannot be used: it has certificates too, which would be trusted"
    )


def test_a_path_that_no_file_can_have_is_refused_in_words(ours: Authority) -> None:
    assert "cannot be used: " in reason(TlsFiles(listening=False, alpn="haptera/1", authorities="a\0b"))


def test_a_key_with_a_passphrase_is_refused(ours: Authority) -> None:
    ours.encrypt_key("server")
    said = reason(server_files(ours.folder))
    assert said == (
        f"the key of the certificate {ours.folder}/server.key cannot be used: it is encrypted with a passphrase; "
        "a node starts without one to type it"
    )


def test_the_key_of_another_certificate_is_refused(ours: Authority) -> None:
    (ours.folder / "server.key").write_bytes((ours.folder / "client.key").read_bytes())
    assert reason(server_files(ours.folder)).endswith(f"it is not the key of {ours.folder}/server.pem")


@pytest.mark.parametrize("name", ["server.pem", "server.key", "ours-ca.pem", "all.crl"])
@pytest.mark.parametrize("content", [None, b"", b"no PEM", b"x" * (TLS_FILE_SIZE_MAX + 1)])
def test_each_file_that_cannot_be_used_is_named(ours: Authority, name: str, content: bytes | None) -> None:
    revoked = ours.revoke("all")
    path = ours.folder / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    said = reason(server_files(ours.folder, client_ca=ours.path, revoked=str(revoked)))
    assert f" {path} cannot be used: " in said
    wanted = "No such file" if content is None else "more than 1048576 bytes" if len(content) > 100 else ""
    assert wanted in said


def test_no_part_of_a_key_is_told(ours: Authority) -> None:
    key = ours.folder / "server.key"
    lines = key.read_text().splitlines()
    key.write_text("\n".join([lines[0], lines[1][:-4] + "!!!!", *lines[2:]]))
    said = reason(server_files(ours.folder))
    assert not any(line[:8] in said for line in lines[1:-1])


def test_files_that_change_while_they_are_read_are_read_again(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    original, readings = tls_context._load, []

    def replaced(files: TlsFiles, signature: tls_context.Signature) -> tls_context.TlsContext:
        readings.append(signature)
        loaded = original(files, signature)
        if len(readings) == 1:
            ours.issue("server", "localhost")
        return loaded

    monkeypatch.setattr(tls_context, "_load", replaced)
    found = load_context(server_files(ours.folder))
    assert len(readings) == 2
    assert found == tls_context.TlsContext(
        found.context,
        "haptera/1",
        first_certificate((ours.folder / "server.pem").read_bytes()),
        None,
        found.key_mode,
        server_files(ours.folder).signature(),
    )


def test_files_that_never_rest_are_given_up(ours: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    original = tls_context._load

    def replaced(files: TlsFiles, signature: tls_context.Signature) -> tls_context.TlsContext:
        loaded = original(files, signature)
        ours.issue("server", "localhost")
        return loaded

    monkeypatch.setattr(tls_context, "_load", replaced)
    assert "change while they are read" in reason(server_files(ours.folder))
