"""Verifiers, decoys, and the keys that a process has derived."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import os
from dataclasses import replace

import pytest

from haptera.access_rules import ITERATIONS, ITERATIONS_MAX, ITERATIONS_MIN, is_new_verifier
from haptera.security import SaltedPasswords, decoy, derive_keys, new_verifier, verifier_of
from haptera.security import salted_passwords as salted_passwords_module
from haptera.security.salted_passwords import KEPT_MAX
from haptera.security.scram import ScramAcceptor
from haptera.security.verifiers import ClientKeys, Verifier
from tests.unit.security.exchange import ITERATIONS as FEW
from tests.unit.security.exchange import PASSWORD, SALT, VERIFIER


def test_a_verifier_is_what_rfc_5802_says() -> None:
    salted = hashlib.pbkdf2_hmac("sha256", PASSWORD.encode(), SALT, FEW)
    client_key = hmac.new(salted, b"Client Key", "sha256").digest()
    server_key = hmac.new(salted, b"Server Key", "sha256").digest()
    assert Verifier(SALT, FEW, hashlib.sha256(client_key).digest(), server_key) == VERIFIER
    assert derive_keys(PASSWORD, SALT, FEW) == ClientKeys(client_key, server_key)


def test_a_new_verifier_has_600000_iterations_and_a_salt_of_16_bytes_of_the_entropy() -> None:
    made = new_verifier("p", lambda size: b"s" * size)
    assert (made.salt, made.iterations) == (b"s" * 16, 600_000)
    assert ITERATIONS_MIN <= ITERATIONS == 600_000 <= ITERATIONS_MAX


@pytest.mark.parametrize("wrong", [PASSWORD + " ", PASSWORD.upper(), "x", "é", "e\u0301"])
def test_a_verifier_accepts_its_password_alone(wrong: str) -> None:
    """Nothing is normalised: an accent in one sign and one in two are two passwords."""
    assert VERIFIER.accepts(PASSWORD)
    assert not VERIFIER.accepts(wrong)
    assert verifier_of(wrong, SALT, FEW).accepts(wrong)


def test_a_decoy_is_the_same_each_time_and_another_for_each_name_and_node() -> None:
    names = ["app", "ap", "app2", "root", "ü"]
    decoys = [decoy(secret, name) for secret in (b"node 1", b"node 2") for name in names]
    assert decoys == [decoy(secret, name) for secret in (b"node 1", b"node 2") for name in names]
    assert len({each.salt for each in decoys}) == len({each.stored_key for each in decoys}) == 10
    assert {len(each.salt) for each in decoys} == {16}
    assert not {each.stored_key for each in decoys} & {each.server_key for each in decoys}


def test_the_salt_of_an_unknown_user_is_an_hmac_of_the_name() -> None:
    assert decoy(b"node secret", "app").salt == hmac.new(b"node secret", b"app", "sha256").digest()[:16]
    assert decoy(b"node secret", "app").iterations == ITERATIONS


def test_a_decoy_looks_like_each_verifier_that_a_store_takes() -> None:
    assert is_new_verifier(decoy(b"node secret", "app"))
    assert is_new_verifier(new_verifier("p", lambda size: b"s" * size))
    assert not is_new_verifier(verifier_of("p", b"s" * 16, FEW))
    assert not is_new_verifier(replace(decoy(b"node secret", "app"), salt=b"s" * 17))


def test_a_decoy_accepts_neither_a_password_nor_the_key_that_it_shows() -> None:
    found = replace(decoy(b"node", "app"), iterations=FEW)
    assert not any(found.accepts(password) for password in ("app", "x", PASSWORD))


@pytest.mark.parametrize("function", [ScramAcceptor.receive_final, Verifier.accepts])
def test_secrets_are_compared_in_constant_time(function: object) -> None:
    """A timed assertion would prove nothing on a busy machine: the comparison that is called is looked at."""
    source = inspect.getsource(function)  # type: ignore[arg-type]
    assert "compare_digest(" in source
    assert "==" not in source


def test_keys_are_derived_once_for_a_password_a_salt_and_iterations(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = []

    def derive(password: str, salt: bytes, iterations: int) -> ClientKeys:
        derived.append((password, salt, iterations))
        return derive_keys(password, salt, iterations)

    monkeypatch.setattr(salted_passwords_module, "derive_keys", derive)
    kept = SaltedPasswords(os.urandom)
    assert kept.known(PASSWORD, SALT, FEW) is None
    assert kept.derive(PASSWORD, SALT, FEW) == derive_keys(PASSWORD, SALT, FEW)
    assert kept.derive(PASSWORD, SALT, FEW) is kept.known(PASSWORD, SALT, FEW)
    for others in ((PASSWORD + "x", SALT, FEW), (PASSWORD, SALT + b"x", FEW), (PASSWORD, SALT, FEW + 1)):
        assert kept.known(*others) is None
        assert kept.derive(*others) == derive_keys(*others)
    assert kept.known(PASSWORD[1:], SALT + PASSWORD[:1].encode(), FEW) is None
    assert len(derived) == len(kept) == 4


def test_the_newest_keys_are_kept_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(salted_passwords_module, "derive_keys", lambda *_: ClientKeys(b"c", b"s"))
    kept = SaltedPasswords(os.urandom)
    for number in range(KEPT_MAX + 10):
        kept.derive("p", number.to_bytes(16, "big"), FEW)
        assert len(kept) == min(number + 1, KEPT_MAX)
    assert kept.known("p", (9).to_bytes(16, "big"), FEW) is None
    assert kept.known("p", (10).to_bytes(16, "big"), FEW) is not None


def test_the_table_of_keys_holds_no_password() -> None:
    kept = SaltedPasswords(bytes)
    kept.derive(PASSWORD, SALT, FEW)
    assert PASSWORD not in repr(kept._kept)
    assert [len(place) for place in kept._kept] == [32]
