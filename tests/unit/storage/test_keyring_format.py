"""The file of the keyring as bytes: data keys that only the master key opens, and that no one can change."""

from __future__ import annotations

import re

import google_crc32c
import pytest

from haptera.errors import CorruptionError
from haptera.storage import DataKey, Keyring, MasterKey, unwrap_keyring
from haptera.storage.directory import KEYRING_SIZE_MAX
from haptera.storage.errors import NewerFormat, WrongKey
from haptera.storage.keyring_format import WrappedKeyring, wrap
from haptera.storage.stored_keyring import DATA_KEYS_MAX

MASTER, OTHER = MasterKey.of(b"m" * 32), MasterKey.of(b"o" * 32)
KEYS = [DataKey.of(bytes([at]) * 32, created_ms=1_700_000_000_000 + at, first_segment=at) for at in range(1, 4)]


def wrapped(*masters: MasterKey) -> bytes:
    return wrap(Keyring(KEYS), masters or (MASTER,))


def checked(data: bytes) -> bytes:
    """The file with a CRC-32C that fits its content, as someone would write who changes it on purpose."""
    head, body = data.split(b"\n\n", 1)
    return re.sub(rb"check = \d+", b"check = %d" % google_crc32c.value(body), head) + b"\n\n" + body


def test_the_master_key_opens_it() -> None:
    assert unwrap_keyring("keys", wrapped(), MASTER).keys == tuple(KEYS)


def test_each_of_two_master_keys_opens_it() -> None:
    data = wrapped(MASTER, OTHER)
    assert WrappedKeyring("keys", data).master_ids == (MASTER.id, OTHER.id)
    for master in (MASTER, OTHER):
        assert unwrap_keyring("keys", data, master).keys == tuple(KEYS)


def test_another_master_key_is_told_from_the_right_one_by_their_ids() -> None:
    with pytest.raises(WrongKey) as caught:
        unwrap_keyring("data/keys", wrapped(), OTHER)
    error = caught.value
    assert (error.file, error.expected, error.actual) == ("data/keys", MASTER.id.hex(), OTHER.id.hex())
    assert error.kind == "master key"


def test_no_secret_stands_in_it() -> None:
    data = wrapped(MASTER, OTHER)
    for secret in [key.secret for key in KEYS] + [MASTER.secret, OTHER.secret]:
        assert secret not in data
        assert secret.hex().encode() not in data.lower()


def test_no_two_files_are_encrypted_under_one_key_and_nonce() -> None:
    """A nonce used again would show the difference of two contents: the salt makes each wrapping's key its own."""
    salts, sealed = set(), set()
    for _ in range(20):
        data = wrapped(MASTER, OTHER)
        salts |= set(re.findall(rb'salt = "(.*)"', data))
        sealed |= {text[:64] for text in re.findall(rb'secrets = "(.*)"', data)}
    assert len(salts) == len(sealed) == 40


def test_a_changed_byte_is_damage_or_changes_nothing() -> None:
    data = wrapped(MASTER, OTHER)
    for at in range(len(data)):
        for mask in (1, 0x20, 0x80):
            changed = data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
            with pytest.raises((CorruptionError, NewerFormat)):
                unwrap_keyring("keys", changed, MASTER)


def test_a_file_that_was_cut_or_that_goes_on_is_damage() -> None:
    data = wrapped()
    for end in range(len(data)):
        with pytest.raises(CorruptionError):
            unwrap_keyring("keys", data[:end], MASTER)
    for more in (b"\n", b"\0", data):
        with pytest.raises(CorruptionError):
            unwrap_keyring("keys", data + more, MASTER)


def tables(data: bytes) -> tuple[bytes, list[bytes]]:
    head, body = data.split(b"\n\n", 1)
    return head + b"\n\n", body.split(b"\n\n")


@pytest.mark.parametrize("change", ["left out", "reordered", "doubled", "renamed", "redated", "moved"])
def test_an_entry_that_was_changed_on_purpose_is_damage(change: str) -> None:
    """The checksum fits, so the authentication alone finds it."""
    head, parts = tables(wrapped())
    if change == "left out":
        del parts[1]
    elif change == "reordered":
        parts[0], parts[1] = parts[1], parts[0]
    elif change == "doubled":
        parts.insert(1, parts[0])
    elif change == "renamed":
        parts[0] = parts[0].replace(KEYS[0].id.hex().encode(), bytes(8).hex().encode())
    elif change == "redated":
        parts[2] = parts[2].replace(b"created_ms = 17", b"created_ms = 18")
    else:
        parts[2] = parts[2].replace(b"first_segment = 3", b"first_segment = 1")
    changed = checked(head + b"\n\n".join(parts))
    assert changed != wrapped()
    with pytest.raises(CorruptionError):
        unwrap_keyring("keys", changed, MASTER)


def test_secrets_of_another_file_under_the_same_master_key_are_damage() -> None:
    others = wrap(Keyring([DataKey.of(b"x" * 32), *KEYS[1:]]), [MASTER])
    (head, parts), (_, foreign) = tables(wrapped()), tables(others)
    with pytest.raises(CorruptionError):
        unwrap_keyring("keys", checked(head + b"\n\n".join([*parts[:3], foreign[3]])), MASTER)


def test_a_tag_that_is_not_that_of_the_secrets_is_damage() -> None:
    data = wrapped()
    at = data.rindex(b'"') - 1
    changed = checked(data[:at] + (b"1" if data[at : at + 1] == b"0" else b"0") + data[at + 1 :])
    with pytest.raises(CorruptionError, match=MASTER.id.hex()):
        unwrap_keyring("keys", changed, MASTER)


def test_no_error_shows_what_the_file_holds() -> None:
    data = wrapped()
    for changed in (
        data[:-9],
        data.replace(b"secrets", b"secret_"),
        checked(data.replace(b'secrets = "', b'secrets = "00')),
    ):
        with pytest.raises(CorruptionError) as caught:
            unwrap_keyring("keys", changed, MASTER)
        assert data[-60:-30].decode() not in str(caught.value)


def test_a_newer_format_is_named_as_such() -> None:
    with pytest.raises(NewerFormat) as caught:
        unwrap_keyring("keys", b"format = 3\nanything = 1\n", MASTER)
    assert (caught.value.found, caught.value.supported) == (3, 2)


def test_the_largest_keyring_fits_its_file() -> None:
    keys = [DataKey.of(at.to_bytes(32, "big"), 9_999_999_999_999, (1 << 64) - 1) for at in range(DATA_KEYS_MAX)]
    data = wrap(Keyring(keys), [MASTER, OTHER])
    assert KEYRING_SIZE_MAX // 2 < len(data) <= KEYRING_SIZE_MAX
    assert unwrap_keyring("keys", data, OTHER).keys == tuple(keys)


@pytest.mark.parametrize("data", [b"k" * 32, b"0f" * 32, b"0F" * 32 + b"\n", b" \t" + b"0f" * 32 + b"\r\n"])
def test_a_master_key_is_32_bytes_or_64_hex_digits(data: bytes) -> None:
    key = MasterKey.parse(data)
    assert key is not None
    assert key.secret == (data if len(data) == 32 else b"\x0f" * 32)
    assert MasterKey.parse(key.format()) == key


@pytest.mark.parametrize(
    "data", [b"", b"k" * 31, b"k" * 33, b"0f" * 31 + b"0g", b"0f" * 33, b"0f" * 16 + b" " + b"0f" * 16]
)
def test_anything_else_is_no_master_key(data: bytes) -> None:
    assert MasterKey.parse(data) is None
