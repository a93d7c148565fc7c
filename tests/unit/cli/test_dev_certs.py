"""`haptera dev-certs`: files for tests of TLS, which nothing replaces, and which both sides of a connection take."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

import haptera
from haptera.cli import dev_certificates, dev_certs
from haptera.testing import virtual_clock
from tests.integration.commands import run
from tests.unit.peer.hosts import Echo, served

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ["ca.pem", "client.key", "client.pem", "server.key", "server.pem"]


def names_of(file: Path) -> list[object]:
    certificate = x509.load_pem_x509_certificate(file.read_bytes())
    return [name.value for name in certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]


def test_it_makes_five_files_of_which_the_keys_are_secret(tmp_path: Path) -> None:
    ended = run("dev-certs", str(tmp_path / "new"))
    assert ended.code == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == NAMES
    assert sorted(ended.text.split()) == [str(tmp_path / "new" / name) for name in NAMES]
    for path in (tmp_path / "new").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == (0o600 if path.suffix == ".key" else 0o644)
        if path.suffix == ".key":
            key = load_pem_private_key(path.read_bytes(), None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            assert key.curve.name == "secp256r1"


def test_the_certificates_have_their_names_their_purpose_and_their_time(tmp_path: Path) -> None:
    assert run("dev-certs", str(tmp_path), "--name", "db.example", "--name", "10.0.0.7", "--days", "3").code == 0
    local = ["localhost", ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    assert names_of(tmp_path / "server.pem") == [*local, "db.example", ipaddress.ip_address("10.0.0.7")]
    assert names_of(tmp_path / "client.pem") == ["urn:haptera:client:dev"]
    for name in ("ca", "server", "client"):
        certificate = x509.load_pem_x509_certificate((tmp_path / f"{name}.pem").read_bytes())
        left = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=2) < left <= timedelta(days=3)
        assert certificate.not_valid_before_utc < datetime.now(UTC)


def test_a_client_may_have_another_name(tmp_path: Path) -> None:
    assert run("dev-certs", str(tmp_path), "--client", "reports").code == 0
    assert names_of(tmp_path / "client.pem") == ["urn:haptera:client:reports"]


@pytest.mark.parametrize("name", NAMES)
def test_no_file_is_replaced_and_none_is_left_beside_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    ended = run("dev-certs", str(tmp_path))
    assert (ended.code, ended.out) == (14, b"")
    assert f"cannot make {tmp_path / name}: File exists" in ended.err
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"


@pytest.mark.parametrize(
    "options", [["--name", "nämé.example"], ["--client", ""], ["--client", "a b"], ["--days", "0"]]
)
def test_a_name_or_a_time_that_no_certificate_has_makes_nothing(tmp_path: Path, options: list[str]) -> None:
    assert run("dev-certs", str(tmp_path / "new"), *options).code == 2
    assert not (tmp_path / "new").exists()


def test_the_help_says_that_they_are_for_tests(tmp_path: Path) -> None:
    assert "for tests alone" in run("dev-certs", "--help").text
    assert run("dev-certs", str(tmp_path)).err.startswith("For tests alone.")


@virtual_clock
async def test_both_sides_of_a_connection_take_them(tmp_path: Path) -> None:
    for name, content in dev_certificates.make((), "dev", dev_certs.DAYS).items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    here = "&".join(dev_certs._advice(str(tmp_path), "dev")[1].split("?")[1].strip("'").split("&"))
    there = dev_certs._advice(str(tmp_path), "dev")[3].split("?")[1].strip("'")
    async with (
        served(f"hapteras://127.0.0.1:0?{here}", Echo()) as server,
        haptera.dial(f"{server.url}?{there}") as peer,
    ):
        assert await peer.call("echo", "one", b"in") == b"in"


def test_the_authority_of_one_directory_does_not_vouch_for_another(tmp_path: Path) -> None:
    first, second = (dev_certificates.make((), "dev", 1) for _ in range(2))
    context = ssl.create_default_context(cadata=first["ca.pem"].decode())
    (tmp_path / "c").write_bytes(second["server.pem"])
    (tmp_path / "k").write_bytes(second["server.key"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(tmp_path / "c", tmp_path / "k")
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    here = context.wrap_bio(into, out, server_hostname="localhost")
    there = server.wrap_bio(out, into, server_side=True)
    for side in (here, there):
        with pytest.raises(ssl.SSLWantReadError):
            side.do_handshake()
    with pytest.raises(ssl.SSLCertVerificationError):
        here.do_handshake()
