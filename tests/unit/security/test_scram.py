"""Both roles of SCRAM-SHA-256 (protocol, section 5.1; RFC 5802, RFC 7677)."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace

import pytest

from haptera.security import (
    Binding,
    ExchangeFailed,
    ScramAcceptor,
    ScramDialer,
    decoy,
    derive_keys,
    hello_binding,
    verifier_of,
)
from haptera.security.scram import _State
from tests.unit.security.exchange import (
    ACCEPTOR_NONCE,
    BINDING,
    DIALER_NONCE,
    ITERATIONS,
    NAME,
    PASSWORD,
    SALT,
    VERIFIER,
    acceptor,
    client_final,
    dialer,
    with_flipped_bit,
)


def test_the_example_of_rfc_7677_has_these_messages() -> None:
    binding = Binding("n,,", b"")
    one = ScramDialer("user", binding, "rOprNGfwEbeRWgbNEkqO")
    other = ScramAcceptor(binding, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    first = one.first()
    assert first == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    assert other.receive_first(first) == "user"
    server_first = other.challenge(verifier_of("pencil", salt, 4096), admitted=True)
    assert server_first == (b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")
    final = one.prove(derive_keys("pencil", *one.challenge(server_first)))
    assert final == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    server_final = other.receive_final(final)
    assert server_final == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    one.conclude(server_final)
    assert one.done
    assert other.done


@pytest.mark.parametrize("name", ["a", "a,b=c", "=2C", "=3D2C", "ü", "名" * 85, "x" * 256])
def test_a_name_comes_as_it_is_and_both_sides_share_the_secret_of_signed_frames(name: str) -> None:
    one, other = dialer(name), acceptor()
    final = client_final(one, other)
    early = one.signing_secret()
    one.conclude(other.receive_final(final))
    assert one.done
    assert other.done
    assert early == one.signing_secret() == other.signing_secret()
    assert early.ikm == derive_keys(PASSWORD, SALT, ITERATIONS).client_key + VERIFIER.server_key
    assert other._first is not None
    assert other._first.name == name


def test_the_secret_of_signed_frames_is_another_for_each_exchange() -> None:
    secrets = set()
    for nonce in ("b" * 24, "c" * 24):
        other = acceptor(nonce=nonce)
        other.receive_final(client_final(dialer(), other))
        secrets.add(other.signing_secret().salt)
    assert len(secrets) == 2


#: With the few iterations that the dialer of these tests makes.
DECOY = replace(decoy(b"node", NAME), iterations=ITERATIONS)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"password": PASSWORD + "x"}, "the proof is wrong"),
        ({"verifier": DECOY, "admitted": False}, "the proof is wrong"),
        ({"verifier": DECOY}, "the proof is wrong"),
        ({"admitted": False}, "the user may not come in"),
    ],
)
def test_every_cause_is_the_same_2002_and_the_reason_stays_here(changed: dict[str, object], reason: str) -> None:
    other = acceptor()
    final = client_final(dialer(), other, **changed)  # type: ignore[arg-type]
    with pytest.raises(ExchangeFailed, match=reason) as caught:
        other.receive_final(final)
    assert not other.done
    refused = caught.value.failure()
    assert (refused.code, refused.message, refused.outcome, refused.details) == (
        2002,
        "authentication failed",
        "not_applied",
        {},
    )
    with pytest.raises(ValueError, match="not proved"):
        other.signing_secret()


@pytest.mark.parametrize(
    "seen",
    [
        hello_binding(b"the HELLO frame of another", b"the WELCOME frame", None),
        hello_binding(b"the HELLO frame", b"the WELCOME frame with less", None),
        hello_binding(b"the HELLO frame", b"the WELCOME frame", b"a certificate"),
    ],
)
def test_a_dialer_that_saw_another_handshake_proves_nothing(seen: Binding) -> None:
    other = acceptor()
    final = client_final(dialer(binding=seen), other)
    with pytest.raises(ExchangeFailed, match="another handshake"):
        other.receive_final(final)


def test_a_binding_that_was_put_right_on_the_way_fails_the_proof() -> None:
    other = acceptor()
    seen = hello_binding(b"another", b"handshake", None)
    final = client_final(dialer(binding=seen), other)
    assert seen.attribute.encode() in final
    with pytest.raises(ExchangeFailed, match="the proof is wrong"):
        other.receive_final(final.replace(seen.attribute.encode(), BINDING.attribute.encode()))


def test_the_binding_is_over_both_frames_and_the_certificate() -> None:
    """SHA-256(HELLO ‖ WELCOME ‖ C), by a computation of its own."""
    assert hello_binding(b"", b"", None).data.hex() == (
        "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"  # of 32 zero bytes
    )
    assert hello_binding(b"a", b"bc", b"der") != hello_binding(b"a", b"bc", None)
    assert hello_binding(b"a", b"bc", None).gs2_header == "p=haptera-hello,,"


def test_no_bit_of_a_proof_or_a_signature_may_differ() -> None:
    for bit in range(256):
        one, other = dialer(), acceptor()
        other.receive_first(one.first())
        one.challenge(other.challenge(VERIFIER, admitted=True))
        final = one.prove(_KEYS)
        with pytest.raises(ExchangeFailed):
            other.receive_final(with_flipped_bit(final, b",p", bit))
        again = acceptor()
        again.receive_first(dialer().first())
        again.challenge(VERIFIER, admitted=True)
        server_final = again.receive_final(final)
        with pytest.raises(ExchangeFailed, match="does not know the verifier"):
            one.conclude(with_flipped_bit(server_final, b"v", bit))
        assert not one.done
        assert not other.done


_KEYS = derive_keys(PASSWORD, SALT, ITERATIONS)


def test_a_proof_is_good_for_one_challenge() -> None:
    """A recorded client-final meets another nonce of the acceptor, as it is and with the new nonce put in."""
    recorded = client_final(dialer(), acceptor())
    for final in (recorded, recorded.replace(ACCEPTOR_NONCE.encode(), b"b" * 24)):
        other = acceptor(nonce="b" * 24)
        other.receive_first(dialer().first())
        other.challenge(VERIFIER, admitted=True)
        with pytest.raises(ExchangeFailed):
            other.receive_final(final)
        assert not other.done


def test_a_proof_for_another_nonce_is_refused_though_it_is_right() -> None:
    """The dialer signs a nonce that the acceptor has not given, as one that wants to use its proof again would."""
    other = acceptor()
    one = dialer()
    other.receive_first(one.first())
    server_first = other.challenge(VERIFIER, admitted=True)
    one.challenge(server_first)
    assert one._server_first is not None
    honest = one._server_first
    lied = type(honest)(honest.nonce + "x", honest.salt, honest.iterations, honest.text)
    one._server_first = lied
    with pytest.raises(ExchangeFailed, match="another challenge"):
        other.receive_final(one.prove(_KEYS))


def test_an_acceptor_that_knows_no_verifier_convinces_no_dialer() -> None:
    one = dialer()
    impostor = acceptor()
    final = client_final(one, impostor)
    assert final
    with pytest.raises(ExchangeFailed, match="does not know the verifier"):
        one.conclude(b"v=" + b64encode(bytes(32)))
    assert not one.done
    with pytest.raises(ValueError, match="failed"):
        one.conclude(b"v=" + b64encode(bytes(32)))


STEPS: list[Callable[[ScramDialer], object]] = [
    lambda one: one.first(),
    lambda one: one.challenge(b"r=" + (DIALER_NONCE + ACCEPTOR_NONCE).encode() + b",s=" + b64encode(SALT) + b",i=4096"),
    lambda one: one.prove(_KEYS),
    lambda one: one.conclude(b"v=" + b64encode(bytes(32))),
]


@pytest.mark.parametrize("done", range(4))
@pytest.mark.parametrize("step", range(4))
def test_a_dialer_takes_its_steps_in_their_order_alone(done: int, step: int) -> None:
    one = dialer()
    for each in STEPS[:done]:
        each(one)
    if step == done:
        if step == 3:
            with pytest.raises(ExchangeFailed):
                STEPS[step](one)
        else:
            STEPS[step](one)
        return
    before = one._state
    with pytest.raises(ValueError, match="no step of an exchange"):
        STEPS[step](one)
    assert one._state is before
    if done < 3:
        with pytest.raises(ValueError, match="no proof"):
            one.signing_secret()


def test_an_acceptor_takes_its_steps_in_their_order_alone() -> None:
    other = acceptor()
    with pytest.raises(ValueError, match="new"):
        other.challenge(VERIFIER, admitted=True)
    with pytest.raises(ValueError, match="new"):
        other.receive_final(b"")
    one = dialer()
    first = one.first()
    other.receive_first(first)
    with pytest.raises(ValueError, match="named"):
        other.receive_first(first)
    one.challenge(other.challenge(VERIFIER, admitted=True))
    with pytest.raises(ValueError, match="challenged"):
        other.challenge(VERIFIER, admitted=True)
    final = one.prove(_KEYS)
    other.receive_final(final)
    with pytest.raises(ValueError, match="done"):
        other.receive_final(final)
    assert other.done


def test_an_exchange_that_has_failed_goes_no_further() -> None:
    other = acceptor()
    one = dialer()
    final = client_final(one, other)
    with pytest.raises(ExchangeFailed):
        other.receive_final(b"nonsense")
    with pytest.raises(ValueError, match="failed"):
        other.receive_final(final)
    assert other._state is _State.FAILED
    fresh = acceptor()
    with pytest.raises(ExchangeFailed):
        fresh.receive_first(b"n,,n=app,r=" + b"x" * 24)
    with pytest.raises(ValueError, match="failed"):
        fresh.receive_first(dialer().first())


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "\x7f", "\x85", "x" * 257, "ü" * 129, "\ud800"])
def test_a_dialer_for_a_name_that_no_user_has_is_not_made(name: str) -> None:
    with pytest.raises(ValueError, match="no user has this name"):
        dialer(name)
