"""The users that may come in at a listener: the node's answers to the questions of an exchange, on no connection."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from haptera.node.authenticator import NodeAuthenticator, of_local_socket, of_signing_key, of_users
from haptera.node.external_users import ExternalUsers
from haptera.node.login_failures import LoginFailures
from haptera.node.metrics import Metrics
from haptera.peer import Identity
from haptera.security import Verifier, decoy
from haptera.state import StateMachine
from haptera.state.access import StoredToken, StoredUser
from tests.support.verifiers import VERIFIER
from tests.unit.node.doubles import Recorded

if TYPE_CHECKING:
    from haptera.node.authenticator import Implied

SECRET = b"s" * 32
NOW_MS = 1000


def peer(*names: str, uid: int | None = None) -> Any:
    """A peer with a certificate of these names, or a process of a user of this machine."""
    credentials = None if uid is None else SimpleNamespace(uid=uid)
    return SimpleNamespace(
        certificate_names=names, credentials=credentials, remote="192.0.2.1:5", attributes={}, identity=None
    )


def authenticator(
    external: ExternalUsers | None = None, implied: Implied = of_users, metrics: Metrics | None = None
) -> NodeAuthenticator:
    access = StateMachine().access
    access.adopt(
        users={
            "ann": StoredUser(VERIFIER),
            "cert": StoredUser(None),
            "gone": StoredUser(VERIFIER, disabled=True),
        },
        tokens={
            "token:old": StoredToken(VERIFIER, expires_at_ms=NOW_MS),
            "token:young": StoredToken(VERIFIER, expires_at_ms=NOW_MS + 1),
        },
    )
    failures = LoginFailures(metrics or Metrics(), Recorded(), lambda: 1000.0)
    return NodeAuthenticator(
        access, lambda: NOW_MS, SECRET, external or ExternalUsers(), implied, failures, lambda peer, identity: None
    )


@pytest.mark.parametrize(
    ("name", "admitted"), [("ann", True), ("gone", False), ("token:young", True), ("token:old", False)]
)
def test_a_user_with_a_password_has_its_own_verifier(name: str, admitted: bool) -> None:
    verifier, may = authenticator().login(name)
    assert (verifier.salt, verifier.stored_key, verifier.server_key, may) == (b"s" * 16, b"k" * 32, b"K" * 32, admitted)


@pytest.mark.parametrize("name", ["nobody", "cert", "local", "token:none", ""])
def test_a_user_that_is_unknown_or_has_no_password_has_a_decoy_and_stays_out(name: str) -> None:
    assert authenticator().login(name) == (decoy(SECRET, name), False)


def test_the_work_of_a_login_is_the_same_for_each_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of an answer would tell names with a verifier from others, if a decoy were made for those alone."""
    made: list[str] = []

    def counted(secret: bytes, name: str) -> Verifier:
        made.append(name)
        return decoy(secret, name)

    monkeypatch.setattr("haptera.node.authenticator.decoy", counted)
    node = authenticator()
    names = ["ann", "gone", "token:young", "token:old", "nobody", "cert"]
    for name in names:
        node.login(name)
    assert made == names


def test_a_certificate_stands_for_a_user_that_is_there_and_may_come_in() -> None:
    node = authenticator()
    assert node.external(peer("ann", "cert")) == "ann"
    assert node.external(peer("cert")) == "cert"
    for names in ((), ("nobody",), ("gone",), ("nobody", "ann")):
        assert node.external(peer(*names)) is None


def test_a_certificate_with_the_name_of_a_token_or_of_the_local_user_stands_for_nobody() -> None:
    """`token:young` is a URI, which an authority may put into a certificate."""
    for name in ("token:young", "local", "admin"):
        assert authenticator().external(peer(name)) is None


def test_the_configuration_says_whom_certificates_and_processes_stand_for() -> None:
    node = authenticator(ExternalUsers({"spiffe://a": "ann", "spiffe://g": "gone"}, {1000: "cert", 1001: "nobody"}))
    assert node.external(peer("x.example", "spiffe://a")) == "ann"
    assert node.external(peer("ann")) is None
    assert node.external(peer("spiffe://g")) is None
    assert [node.external(peer(uid=uid)) for uid in (1000, 1001, 1002)] == ["cert", None, None]
    assert node.external(peer()) is None


def test_at_a_usual_listener_each_has_to_prove_its_identity() -> None:
    assert authenticator().mechanisms(peer(uid=os.geteuid())) == ("EXTERNAL", "SCRAM-SHA-256", "PLAIN")


def test_at_the_local_socket_the_user_of_the_node_and_root_need_no_proof_and_others_do() -> None:
    node = authenticator(implied=of_local_socket)
    for uid in (os.geteuid(), 0):
        assert node.mechanisms(peer(uid=uid)) == ()
        assert node.implied(peer(uid=uid)) == Identity("local", "local")
    for other in (peer(uid=os.geteuid() + 12345), peer()):
        assert "SCRAM-SHA-256" in node.mechanisms(other)


def test_who_has_the_signing_key_acts_as_the_configured_user() -> None:
    node = authenticator(implied=of_signing_key("ann"))
    assert (node.mechanisms(peer()), node.implied(peer())) == ((), Identity("ann", "PSK"))


def test_logins_are_counted_by_their_end() -> None:
    metrics = Metrics()
    node = authenticator(metrics=metrics)
    node.ended(peer(), "ann", "PLAIN", None)
    for name in ("bob", ""):
        node.ended(peer(), name, "PLAIN", "the password is wrong")
    assert (metrics.logins_total, metrics.logins_failed_total) == (1, 2)
