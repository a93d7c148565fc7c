"""The keys of CAFE: tags that others compute, keys that follow, and nothing that shows them."""

from __future__ import annotations

import hmac

import pytest

from haptera.dialects.cafe.message_keys import ConnectionKey, _plain_tagger
from haptera.errors import ConfigurationError
from tools.cafe_vectors import SHARED_KEY, bound_key


def test_a_tag_is_hmac_sha256() -> None:
    key = ConnectionKey(SHARED_KEY)
    for head, body in ((b"", b""), (b"head", b"body"), (bytes(16), bytes(100_000))):
        expected = hmac.digest(SHARED_KEY, head + body, "sha256")
        assert key.tag(head, body) == _plain_tagger(SHARED_KEY)(head, body) == expected


def test_without_the_package_the_tags_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cryptography.hazmat.primitives.hmac", None)
    assert ConnectionKey(SHARED_KEY).tag(b"a", b"b") == hmac.digest(SHARED_KEY, b"ab", "sha256")


def test_the_key_behind_bind_is_that_of_the_specification() -> None:
    client, server = bytes(16), bytes(range(16))
    expected = ConnectionKey(bound_key(SHARED_KEY, client, server))
    assert ConnectionKey(SHARED_KEY).bound(client, server).tag(b"a", b"b") == expected.tag(b"a", b"b")


@pytest.mark.parametrize("secret", [b"", SHARED_KEY[1:], SHARED_KEY + b"x", SHARED_KEY.hex()])
def test_a_key_of_another_size_is_refused_and_not_shown(secret: bytes) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ConnectionKey(secret)
    assert str(caught.value) == "the shared key of CAFE has 32 bytes"


def test_a_body_opens_only_with_its_key_nonce_and_head() -> None:
    key = ConnectionKey(SHARED_KEY)
    sealed = key.encrypt(bytes(12), b"plain", b"head")
    assert key.decrypt(bytes(12), sealed, b"head") == b"plain"
    assert key.decrypt(bytes(11) + b"x", sealed, b"head") is None
    assert key.decrypt(bytes(12), sealed, b"tail") is None
    assert key.decrypt(bytes(12), sealed[:-1] + b"x", b"head") is None
    assert ConnectionKey(bytes(32)).decrypt(bytes(12), sealed, b"head") is None
