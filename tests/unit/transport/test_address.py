"""URLs (spec/protocol.md, section 1): what they name, and that no password leaves by way of them."""

from __future__ import annotations

import random
import socket
import string
from collections.abc import Awaitable, Callable
from io import StringIO

import msgspec
import pytest

from haptera import dial, listen
from haptera.errors import ConfigurationError, ConnectionLost
from haptera.transport.address import Address, format_host, parse, redact, url_of

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("haptera://h", (("h", 7457),)),
        ("haptera://h/", (("h", 7457),)),
        ("HAPTERA://h:1", (("h", 1),)),
        ("haptera://127.0.0.1:0", (("127.0.0.1", 0),)),
        ("haptera://h:65535", (("h", 65535),)),
        ("haptera://[::1]", (("::1", 7457),)),
        ("haptera://[::1]:80", (("::1", 80),)),
        ("haptera://[fe80::1%25eth0]:80", (("fe80::1%eth0", 80),)),
        ("haptera://a:1,b:2,c", (("a", 1), ("b", 2), ("c", 7457))),
        ("haptera://a:1,[::1]:2,[::2]", (("a", 1), ("::1", 2), ("::2", 7457))),
    ],
)
def test_a_tcp_url_names_its_hosts(url: str, hosts: tuple[tuple[str, int], ...]) -> None:
    address = parse(url)
    assert (address.scheme, address.hosts, address.path, address.user) == ("haptera", hosts, "", None)


def test_a_url_of_tls_names_its_hosts_too() -> None:
    address = parse("hapteras://a:1,[::1]?ca=/etc/ca%20one.pem")
    assert (address.tls, address.hosts) == (True, (("a", 1), ("::1", 7457)))
    assert address.options == {"ca": "/etc/ca one.pem"}
    assert parse(str(address)) == address
    assert url_of(("a", 1), "hapteras") == "hapteras://a:1"
    assert not parse("haptera://a").tls


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("haptera+unix:///run/home.sock", "/run/home.sock"),
        ("haptera+unix:///run/a%20b%3F.sock", "/run/a b?.sock"),
        ("haptera+unix:///%C3%A4", "/ä"),
        ("haptera+unix:///run/a:b", "/run/a:b"),
        ("haptera+unix:///%FF", "/\udcff"),
    ],
)
def test_a_unix_url_names_its_path(url: str, path: str) -> None:
    address = parse(url)
    assert (address.scheme, address.path, address.hosts) == ("haptera+unix", path, ())
    assert parse(str(address)) == parse(url_of(path)) == address


@pytest.mark.parametrize(
    ("url", "user", "password"),
    [
        ("haptera://ann@h", "ann", None),
        ("haptera://ann:pw@h", "ann", "pw"),
        ("haptera://ann:@h", "ann", ""),
        ("haptera://a%40b:p%3A%2F%3F%23%40@h", "a@b", "p:/?#@"),
        ("haptera://ann:p@ss@h", "ann", "p@ss"),
        ("haptera://ann:p:w@h", "ann", "p:w"),
        ("haptera+unix://ann:pw@/run/s", "ann", "pw"),
    ],
)
def test_a_url_may_carry_a_credential(url: str, user: str, password: str | None) -> None:
    address = parse(url)
    assert (address.user, address.password) == (user, password)


def test_options_are_decoded() -> None:
    assert parse("haptera://h?timeout=2&name=a%26b&empty=").options == {"timeout": "2", "name": "a&b", "empty": ""}


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("", "does not begin with"),
        ("h:7457", "does not begin with"),
        ("http://h", r"does not begin with haptera://, hapteras:// or haptera\+unix://"),
        ("haptera:h", "does not begin with"),
        ("haptera://", "names no host"),
        ("haptera://:7457", "names no host"),
        ("haptera://a,,b", "names no host"),
        ("haptera://h:", "port"),
        ("haptera://h:65536", "port"),
        ("haptera://h:-1", "port"),
        ("haptera://h:٣", "port"),
        ("haptera://h:" + "9" * 5000, "port"),
        ("haptera://::1", "brackets"),
        ("haptera://[::1", "bracket"),
        ("haptera://[::1]x", "bracket"),
        ("haptera://h/path", "path"),
        ("haptera://[[2]:57", "neither a name nor an address"),
        ("haptera://[zz]:1", "neither a name nor an address"),
        ("haptera://a%2Cb", "neither a name nor an address"),
        ("haptera://a%40b", "neither a name nor an address"),
        ("haptera://x%0Ay", "neither a name nor an address"),
        ("haptera://h#x", "fragment"),
        ("haptera://h\n", "control character"),
        ("haptera://a b", "space"),
        ("haptera://h?a=1&a=2", "twice"),
        ("haptera+unix://", "absolute path"),
        ("haptera+unix:///", "absolute path"),
        ("haptera+unix://run/s", "absolute path"),
        ("haptera+unix:///run/%00", "NUL"),
    ],
)
def test_a_malformed_url_is_refused_with_its_reason(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        parse(url)


@pytest.mark.parametrize(
    "url",
    [
        f"haptera://ann:{SECRET}@h:7457",
        f"haptera://ann:{SECRET}@h:bad",
        f"haptera://ann:{SECRET}@",
        f"haptera://ann:{SECRET}@h/path",
        f"haptera://ann:{SECRET}@h#f",
        f"haptera://ann:{SECRET}@[::1",
        f"haptera://ann:{SECRET}@h?a=1&a=2",
        f"haptera://ann:a/{SECRET}@h",
        f"haptera://ann:{SECRET}/a@h",
        f"haptera://ann:{SECRET}?a@h",
        f"haptera://ann:{SECRET}#a@h",
        f"haptera://ann:{SECRET}@a@h",
        f"haptera://ann:a@{SECRET}@h",
        f"haptera://ann:{SECRET}\n@h",
        f"haptera://ann:{SECRET}℀@h",
        f"haptera://ann:://{SECRET}@h",
        f"haptera+unix://ann:{SECRET}@/run/s",
        f"haptera+unix://ann:{SECRET}@run/s",
        f"redis://ann:{SECRET}@h",
        f"ann:{SECRET}@h",
    ],
)
async def test_no_error_repr_or_text_shows_a_password(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror("no name is known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    shown = [redact(url)]
    try:
        address = parse(url)
    except ConfigurationError as error:
        shown += [str(error), repr(error)]
    else:
        shown += [str(address), repr(address), f"{address}", f"{[address]}"]
        shown += [str(address.__rich_repr__())]
    for use, refused in ((listen, ConfigurationError), (dial, (ConfigurationError, ConnectionLost))):
        with pytest.raises(refused) as caught:
            await use(url)
        shown += [str(caught.value), repr(caught.value), str(caught.value.__cause__)]
    assert not [text for text in shown if SECRET in text]
    assert "***" in shown[0]


def test_rich_shows_no_password() -> None:
    console = pytest.importorskip("rich.console").Console(file=StringIO())
    console.print(parse(f"haptera://ann:{SECRET}@h"))
    assert SECRET not in console.file.getvalue()


@pytest.mark.parametrize("url", ["haptera://ann@h", "haptera://h:1", "haptera+unix:///run/s", "h"])
def test_a_url_without_a_password_is_shown_as_it_is(url: str) -> None:
    assert redact(url) == url


def test_what_is_shown_parses_to_the_same_again() -> None:
    draw = random.Random(random.getrandbits(64))
    signs = string.ascii_letters + "@:/?#%& ä[]"
    for _ in range(200):
        user, path = ("".join(draw.choices(signs, k=5)) for _ in range(2))
        options = {"o": "".join(draw.choices(signs, k=5))}
        tcp = Address(scheme="haptera", hosts=(("h", 1), ("::1", 2)), user=user, options=options)
        unix = Address(scheme="haptera+unix", path="/" + path, user=user, options=options)
        assert parse(str(tcp)) == tcp
        assert parse(str(unix)) == unix


def test_hosts_are_shown_with_brackets_where_they_need_them() -> None:
    assert (format_host("h", 1), format_host("::1", 2)) == ("h:1", "[::1]:2")


@pytest.mark.parametrize(
    ("use", "url", "reason"),
    [
        (listen, "haptera://ann@h", "has a user, and a listener has none"),
        (dial, "haptera://ann@h", "the password is missing"),
        (listen, "haptera://h?tls=yes", "not known"),
        (dial, "haptera://h?tls=yes", "not known"),
        (listen, "haptera://h?signed=scram", "needs an authenticator"),
        (dial, "haptera://h?signed=scram", "needs a user and a password"),
    ],
)
async def test_a_part_of_a_url_that_cannot_be_honoured_is_refused_not_dropped(
    use: Callable[[str], Awaitable[object]], url: str, reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        await use(url)


@pytest.mark.parametrize(
    "url",
    [
        "haptera:/app:hunter2@a,haptera://b",
        "app:hunter2@a://b",
        "haptera//app:hunter2@a,haptera://b:1",
        "app:hunter2@h",
    ],
)
def test_a_password_before_a_misplaced_separator_is_not_shown(url: str) -> None:
    assert "hunter2" not in redact(url)
    with pytest.raises(ConfigurationError) as refused:
        parse(url)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("user", "shown"), [("a/b", "a%2Fb"), ("~a.b-c_d", "~a.b-c_d"), ("é", "%C3%A9"), ("a%b", "a%25b"), ("", "")]
)
def test_a_user_is_shown_percent_encoded_where_it_has_to_be(user: str, shown: str) -> None:
    address = msgspec.structs.replace(parse("haptera://h:1"), user=user)
    assert str(address) == f"haptera://{shown}@h:1"
    assert parse(str(address)).user == user
