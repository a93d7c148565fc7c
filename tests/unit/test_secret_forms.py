"""Keys of 32 bytes as files hold them."""

from __future__ import annotations

import pytest

from haptera.secret_forms import form_of, key_in, size_of_no_key

KEY = bytes(range(32))


@pytest.mark.parametrize("content", [KEY, KEY.hex().encode(), b" " + KEY.hex().upper().encode() + b"\r\n"])
def test_a_key_is_raw_or_hex(content: bytes) -> None:
    assert key_in(content) == KEY


@pytest.mark.parametrize("content", [b"", KEY + b"\n", KEY[1:], KEY.hex().encode()[:-1], b"g" * 64, b"a" * 65])
def test_anything_else_is_none(content: bytes) -> None:
    assert key_in(content) is None


def test_text_may_have_to_be_hex() -> None:
    assert key_in(KEY, raw=False) is None
    assert key_in(KEY.hex().encode(), raw=False) == KEY


def test_errors_tell_sizes_and_no_content() -> None:
    assert form_of("a key") == "a key is 32 bytes, raw or as 64 hex digits"
    assert size_of_no_key(b"abc\n") == "3 hex digits"
    assert size_of_no_key(b"x" * 64) == "64 bytes that are not all hex digits"
    assert size_of_no_key(b"secret") == "6 bytes"
