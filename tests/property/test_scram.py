"""Whole exchanges of SCRAM between our two roles: with any user, and with somebody who changes messages on the way."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from haptera.access_rules import is_name, is_password
from haptera.security import (
    ExchangeFailed,
    PlainLogin,
    ScramAcceptor,
    ScramDialer,
    Verifier,
    decoy,
    derive_keys,
    hello_binding,
    read_plain,
    verifier_of,
    write_plain,
)

NAMES = st.text(min_size=1, max_size=80).filter(is_name)
PASSWORDS = st.text(min_size=1, max_size=80).filter(is_password)
NONCES = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=","), min_size=16, max_size=128
)
BINDING = hello_binding(b"hello", b"welcome", None)
SALT = bytes(range(16))
KEYS = derive_keys("password", SALT, 4096)
VERIFIER = verifier_of("password", SALT, 4096)


@settings(max_examples=40)
@given(NAMES, PASSWORDS, NONCES, NONCES, st.binary(min_size=16, max_size=64), st.binary(max_size=300))
def test_the_owner_of_the_password_comes_in_and_nobody_else(
    name: str, password: str, dialer_nonce: str, acceptor_nonce: str, salt: bytes, hello: bytes
) -> None:
    binding = hello_binding(hello, b"welcome", None)
    verifier = verifier_of(password, salt, 4096)
    for known in (verifier, replace(decoy(b"secret", name), iterations=4096)):
        one, other = ScramDialer(name, binding, dialer_nonce), ScramAcceptor(binding, acceptor_nonce)
        assert other.receive_first(one.first()) == name
        challenge = one.challenge(other.challenge(known, admitted=known is verifier))
        final = one.prove(derive_keys(password, *challenge))
        try:
            one.conclude(other.receive_final(final))
        except ExchangeFailed:
            assert known is not verifier
        else:
            assert known is verifier
            assert one.signing_secret() == other.signing_secret()


@given(st.data())
def test_a_side_is_done_only_if_it_has_read_what_the_other_has_sent(data: st.DataObject) -> None:
    """Somebody in the middle changes any one message, in any way."""
    at = data.draw(st.integers(0, 3))
    one, other = ScramDialer("app", BINDING, "d" * 24), ScramAcceptor(BINDING, "a" * 24)
    honest = True

    def carried(place: int, message: bytes) -> bytes:
        nonlocal honest
        if place != at:
            return message
        changed = data.draw(changes_of(message))
        honest = changed == message or (place == 3 and changed.startswith(message + b","))
        return changed

    try:
        other.receive_first(carried(0, one.first()))
        one.challenge(carried(1, other.challenge(VERIFIER, admitted=True)))
        final = other.receive_final(carried(2, one.prove(KEYS)))
        one.conclude(carried(3, final))
    except ExchangeFailed:
        pass
    assert honest or not one.done
    assert other.done is (honest or at == 3)


@st.composite
def changes_of(draw: st.DrawFn, message: bytes) -> bytes:
    """A message with some of its bytes replaced, by others or by none, or with something behind it."""
    start = draw(st.integers(0, len(message)))
    end = draw(st.integers(start, min(len(message), start + 4)))
    return message[:start] + draw(st.binary(max_size=4) | st.sampled_from([b",x=1", b",", b"=3D"])) + message[end:]


@given(NAMES, NAMES, st.binary(max_size=40))
def test_a_decoy_looks_like_a_verifier_and_belongs_to_its_name(name: str, other: str, secret: bytes) -> None:
    found = decoy(secret, name)
    real = Verifier(bytes(16), found.iterations, bytes(32), bytes(32))
    assert [len(value) for value in (found.salt, found.stored_key, found.server_key)] == [
        len(value) for value in (real.salt, real.stored_key, real.server_key)
    ]
    assert (found == decoy(secret, other)) is (name == other)


@given(NAMES, PASSWORDS)
def test_plain_carries_any_name_and_any_password(name: str, password: str) -> None:
    login = PlainLogin(name, password)
    assert read_plain(write_plain(login)) == login
