"""PLAIN's one message (protocol, section 5.1; RFC 4616)."""

from __future__ import annotations

import pytest

from haptera.security import ExchangeFailed, PlainLogin, read_plain, write_plain


@pytest.mark.parametrize(
    ("name", "password"), [("app", "p"), ("ü", "ü \n,="), ("n" * 256, "p" * 1024), ("名" * 85, "é" * 512)]
)
def test_a_name_and_a_password_come_as_they_are(name: str, password: str) -> None:
    message = write_plain(PlainLogin(name, password))
    assert message == b"\0" + name.encode() + b"\0" + password.encode()
    assert read_plain(message) == PlainLogin(name, password)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\0",
        b"\0\0",
        b"app\0app\0p",
        b"\0app",
        b"\0app\0",
        b"\0\0p",
        b"\0app\0p\0",
        b"\0app\0p\0q",
        b"\0a\x01b\0p",
        b"\0\xff\0p",
        b"\0app\0\xff",
        b"\0" + b"n" * 257 + b"\0p",
        b"\0n\0" + b"p" * 1025,
        b"\0" + "ü".encode() * 129 + b"\0p",
        b"\0n\0" + "é".encode() * 513,
        b"\0n\0" + b"p" * 100_000,
    ],
)
def test_every_other_message_is_the_one_error_and_is_not_repeated(message: bytes) -> None:
    with pytest.raises(ExchangeFailed, match=r"the PLAIN message is (malformed|too long)$") as caught:
        read_plain(message)
    assert caught.value.failure().code == 2002
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(("name", "password"), [("", "p"), ("a\0b", "p"), ("a", ""), ("a", "p\0"), ("a", "\ud800")])
def test_a_message_that_could_not_be_read_is_not_written(name: str, password: str) -> None:
    with pytest.raises(ValueError, match="cannot be one"):
        write_plain(PlainLogin(name, password))


def test_the_longest_message_has_1282_bytes() -> None:
    longest = b"\0" + b"n" * 256 + b"\0" + b"p" * 1024
    assert len(longest) == 1282
    assert read_plain(longest).name == "n" * 256
    with pytest.raises(ExchangeFailed, match="too long"):
        read_plain(longest + b"p")
