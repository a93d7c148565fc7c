"""Our SCRAM against scramp, an implementation that is not ours, in both roles.

scramp knows no binding of this name, so each side is given one that both know; the binding is data to either.
"""

from __future__ import annotations

import pytest
from scramp import ScramClient, ScramException, ScramMechanism  # type: ignore[import-untyped]

from haptera.security import Binding, ExchangeFailed, ScramAcceptor, ScramDialer, derive_keys, verifier_of
from tests.unit.security.exchange import ACCEPTOR_NONCE, DIALER_NONCE, ITERATIONS, SALT

CASES = [("user", "pencil"), ("a,b=c", "p,q=r"), ("jürgen", "pässwörd"), ("x", "long " * 100)]
CHANNEL = ("tls-server-end-point", b"the data of the binding")
BINDING = Binding("p=tls-server-end-point,,", CHANNEL[1])
MECHANISM = "SCRAM-SHA-256-PLUS"


@pytest.mark.parametrize(("name", "password"), CASES)
def test_our_dialer_convinces_its_server(name: str, password: str) -> None:
    mechanism = ScramMechanism(MECHANISM)
    known = mechanism.make_auth_info(password, iteration_count=ITERATIONS, salt=SALT)
    server = mechanism.make_server({name: known}.get, channel_binding=CHANNEL)
    one = ScramDialer(name, BINDING, DIALER_NONCE)
    server.set_client_first(one.first().decode())
    challenge = one.challenge(server.get_server_first().encode())
    server.set_client_final(one.prove(derive_keys(password, *challenge)).decode())
    one.conclude(server.get_server_final().encode())
    assert one.done


@pytest.mark.parametrize(("name", "password"), CASES)
def test_its_client_convinces_our_acceptor(name: str, password: str) -> None:
    client = ScramClient([MECHANISM], name, password, channel_binding=CHANNEL)
    other = ScramAcceptor(BINDING, ACCEPTOR_NONCE)
    assert other.receive_first(client.get_client_first().encode()) == name
    verifier = verifier_of(password, SALT, ITERATIONS)
    client.set_server_first(other.challenge(verifier, admitted=True).decode())
    client.set_server_final(other.receive_final(client.get_client_final().encode()).decode())
    assert other.done


def test_its_verifier_is_ours() -> None:
    salt, stored_key, server_key, iterations = ScramMechanism(MECHANISM).make_auth_info(
        "pencil", iteration_count=ITERATIONS, salt=SALT
    )
    ours = verifier_of("pencil", SALT, ITERATIONS)
    assert (ours.salt, ours.stored_key, ours.server_key, ours.iterations) == (salt, stored_key, server_key, iterations)


def test_a_wrong_password_and_another_binding_fail_on_both_sides() -> None:
    known = ScramMechanism(MECHANISM).make_auth_info("pencil", iteration_count=ITERATIONS, salt=SALT)
    for password, binding in (("pen", BINDING), ("pencil", Binding(BINDING.gs2_header, b"other data"))):
        server = ScramMechanism(MECHANISM).make_server({"user": known}.get, channel_binding=CHANNEL)
        one = ScramDialer("user", binding, DIALER_NONCE)
        server.set_client_first(one.first().decode())
        challenge = one.challenge(server.get_server_first().encode())
        with pytest.raises(ScramException):
            server.set_client_final(one.prove(derive_keys(password, *challenge)).decode())
        client = ScramClient([MECHANISM], "user", password, channel_binding=(CHANNEL[0], binding.data))
        other = ScramAcceptor(BINDING, ACCEPTOR_NONCE)
        other.receive_first(client.get_client_first().encode())
        client.set_server_first(other.challenge(verifier_of("pencil", SALT, ITERATIONS), admitted=True).decode())
        with pytest.raises(ExchangeFailed):
            other.receive_final(client.get_client_final().encode())
