"""The messages of SCRAM as bytes: the one form of each is read, and every other is the one error."""

from __future__ import annotations

from base64 import b64encode

import pytest

from haptera.security import Binding, ExchangeFailed
from haptera.security.scram_messages import (
    MESSAGE_SIZE_MAX,
    new_nonce,
    read_client_final,
    read_client_first,
    read_server_final,
    read_server_first,
    write_client_first,
)
from tests.unit.security.exchange import BINDING

NONCE = "n" * 24
KEY = b64encode(bytes(range(32))).decode()
SALT = b64encode(bytes(16)).decode()
HEAD = BINDING.gs2_header


@pytest.mark.parametrize(
    "text",
    [
        "",
        "n,,n=app,r=" + NONCE,
        "y,,n=app,r=" + NONCE,
        "p=tls-exporter,,n=app,r=" + NONCE,
        "p=haptera-hello,a=root,n=app,r=" + NONCE,
        "p=haptera-hello,,",
        HEAD + "n=app",
        HEAD + "r=" + NONCE,
        HEAD + "r=" + NONCE + ",n=app",
        HEAD + "m=must,n=app,r=" + NONCE,
        HEAD + "n=app,m=must,r=" + NONCE,
        HEAD + "n=app,r=" + NONCE + ",m=must",
        HEAD + "n=app,r=" + NONCE + ",n=root",
        HEAD + "n=app,r=" + NONCE + ",x=1,x=2",
        HEAD + "n=app,r=" + NONCE + ",",
        HEAD + "n=app,r=" + NONCE + ",x",
        HEAD + "n=app,r=" + NONCE + ",x=",
        HEAD + "n=app,r=" + NONCE + ",xy=1",
        HEAD + "n=app,r=" + NONCE + ",1=1",
        HEAD + "n=,r=" + NONCE,
        HEAD + "n=a=b,r=" + NONCE,
        HEAD + "n=a=2c,r=" + NONCE,
        HEAD + "n=a=,r=" + NONCE,
        HEAD + "n=a\0b,r=" + NONCE,
        HEAD + "n=a\nb,r=" + NONCE,
        HEAD + "n=" + "x" * 257 + ",r=" + NONCE,
        HEAD + "n=app,r=" + "n" * 15,
        HEAD + "n=app,r=" + "n" * 129,
        HEAD + "n=app,r=" + "n" * 20 + " " + "n" * 20,
        HEAD + "n=app,r=" + "ü" * 24,
        HEAD + "n=app,r=" + NONCE + ",x=" + "y" * MESSAGE_SIZE_MAX,
    ],
)
def test_a_client_first_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ExchangeFailed):
        read_client_first(text.encode(), BINDING)


@pytest.mark.parametrize("more", ["", ",x=1", ",X=a=b,y=ü"])
def test_a_client_first_with_unknown_extensions_is_signed_as_it_is(more: str) -> None:
    text = "n=a=2Cb=3D,r=" + NONCE + more
    read = read_client_first((HEAD + text).encode(), BINDING)
    assert (read.name, read.nonce, read.bare) == ("a,b=", NONCE, text)


@pytest.mark.parametrize("size", [16, 128])
def test_a_nonce_has_16_to_128_characters(size: int) -> None:
    written = write_client_first("app", "~" * size)
    assert read_client_first((HEAD + written.bare).encode(), BINDING) == written


def test_a_message_has_4096_bytes_at_most() -> None:
    head = HEAD + "n=app,r=" + NONCE + ",x="
    assert read_client_first(head.encode() + b"y" * (4096 - len(head)), BINDING).name == "app"
    with pytest.raises(ExchangeFailed, match="too long"):
        read_client_first(head.encode() + b"y" * (4097 - len(head)), BINDING)


def server_first(nonce: str = NONCE * 2, salt: str = SALT, iterations: str = "4096", more: str = "") -> bytes:
    return f"r={nonce},s={salt},i={iterations}{more}".encode()


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"e=unknown-user",
        server_first(nonce="x" * 48),
        server_first(nonce=NONCE),
        server_first(nonce=NONCE + "x" * 15),
        server_first(nonce=NONCE + "x" * 129),
        server_first(salt=""),
        server_first(salt="A"),
        server_first(salt=SALT[:-2]),
        server_first(salt=SALT + "\n"),
        server_first(salt=SALT[:-3] + "B=="),
        server_first(salt=b64encode(bytes(15)).decode()),
        server_first(salt=b64encode(bytes(65)).decode()),
        server_first(salt=SALT.replace("A", "_", 1)),
        server_first(iterations="4095"),
        server_first(iterations="1000001"),
        server_first(iterations="04096"),
        server_first(iterations="+4096"),
        server_first(iterations="4096.0"),
        server_first(iterations="٤٠٩٦"),
        server_first(iterations="-4096"),
        server_first(iterations="9" * 4000),
        server_first(more=",m=must"),
        server_first(more=",i=4096"),
        b"m=must," + server_first(),
        f"s={SALT},r={NONCE * 2},i=4096".encode(),
    ],
)
def test_a_server_first_that_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(ExchangeFailed):
        read_server_first(message, NONCE)


@pytest.mark.parametrize(("size", "iterations"), [(16, 4096), (64, 1_000_000)])
def test_a_dialer_takes_salts_of_16_to_64_bytes_and_4096_to_1000000_iterations(size: int, iterations: int) -> None:
    read = read_server_first(server_first(salt=b64encode(bytes(size)).decode(), iterations=str(iterations)), NONCE)
    assert (len(read.salt), read.iterations) == (size, iterations)


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"c=biws,r={NONCE}",
        f"c=biws,p={KEY}",
        f"r={NONCE},c=biws,p={KEY}",
        f"c=biws,r={NONCE},p={KEY},x=1",
        f"c=biws,r={NONCE},p={KEY},p={KEY}",
        f"c=biws,r={NONCE},p=",
        f"c=biws,r={NONCE},p={KEY[:-1]}",
        f"c=biws,r={NONCE},p={b64encode(bytes(31)).decode()}",
        f"c=biws,r={NONCE},p={b64encode(bytes(33)).decode()}",
        f"c=biws,r={NONCE},c=biws,p={KEY}",
        f"c=biws,r={NONCE},m=must,p={KEY}",
        f"c=,r={NONCE},p={KEY}",
        f"c=biws,r={NONCE},p={KEY}\0",
    ],
)
def test_a_client_final_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ExchangeFailed):
        read_client_final(text.encode())


def test_a_client_final_with_an_unknown_extension_is_signed_as_it_is() -> None:
    read = read_client_final(f"c=biws,r={NONCE},x=p=1,p={KEY}".encode())
    assert read.bare == f"c=biws,r={NONCE},x=p=1"
    assert read.proof == bytes(range(32))


@pytest.mark.parametrize("text", ["", "v=", "e=other-error", f"v={KEY},v={KEY}", f"x=1,v={KEY}", f"v={KEY[:-4]}", KEY])
def test_a_server_final_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ExchangeFailed):
        read_server_final(text.encode())


def test_a_server_final_may_have_an_unknown_extension() -> None:
    assert read_server_final(f"v={KEY},x=1".encode()) == bytes(range(32))


def test_a_nonce_is_24_characters_of_the_entropy() -> None:
    asked = []

    def entropy(size: int) -> bytes:
        asked.append(size)
        return b"\xfb" * size

    assert new_nonce(entropy) == "+/v7" * 6
    assert asked == [18]


def test_a_reason_never_repeats_the_peer() -> None:
    mark = "hunter2hunter2"
    for message in (mark, HEAD + f"n={mark}=,r={NONCE}", HEAD + f"n={mark},r={mark}", HEAD + f"n={mark}\x01,r={NONCE}"):
        with pytest.raises(ExchangeFailed) as caught:
            read_client_first(message.encode(), Binding(HEAD, mark.encode()))
        assert mark not in f"{caught.value} {caught.value!r} {caught.value.failure()}"
        assert caught.value.__cause__ is None
