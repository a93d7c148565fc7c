"""`haptera decode`: the frames of a recording, and each fault with its place."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.errors import failure
from haptera.wire import (
    COMPRESSED,
    CONTINUED,
    MORE,
    Codec,
    FrameType,
    Signer,
    Tag,
    encode_entry,
    encode_frame,
    encode_head,
    encode_payload,
    encode_route,
    preshared_keys,
)
from tests.integration.commands import Ended, run
from tests.support.planted import PASSWORD
from tests.unit.peer.raw import hello

if TYPE_CHECKING:
    from pathlib import Path

encode = msgspec.msgpack.encode

METADATA = (
    encode_route("kv", "get")
    + encode_entry(Tag.TIMEOUT_MS, (5000).to_bytes(4, "big"))
    + encode_entry(Tag.REQUEST_ID, bytes(range(16)))
    + encode_entry(Tag.TRACEPARENT, b"\0" + bytes(range(16)) + bytes(range(8)) + b"\1")
)
REQUEST = encode_frame(FrameType.REQUEST, 0, 1, METADATA, encode(["user/1"]))
ERROR = encode_frame(
    FrameType.ERROR, 0, 1, b"", encode_payload(failure(4001, {"key": "user/1"}, outcome="not_applied"))
)


def decoded(recording: bytes, *options: str) -> Ended:
    with NamedTemporaryFile() as file:
        file.write(recording)
        file.flush()
        return run("decode", file.name, *options)


def lines(recording: bytes, *options: str) -> list[str]:
    return decoded(recording, *options).text.splitlines()


def fields(recording: bytes, *options: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in lines(recording, "--json", *options)]


def test_a_frame_has_a_line_with_its_place_and_all_that_it_says() -> None:
    ended = decoded(hello() + REQUEST + ERROR)
    assert (ended.code, ended.err) == (0, "")
    first, second, third = ended.text.splitlines()
    assert first.split()[:2] == ["0", "HELLO"]
    assert second.split(maxsplit=4)[:4] == [str(len(hello())), "REQUEST", "stream", "1"]
    trace = f"traceparent 00-{bytes(range(16)).hex()}-{bytes(range(8)).hex()}-01"
    assert f"kv.get  (timeout 5000 ms, request id {bytes(range(16)).hex()}, {trace})" in second
    assert second.endswith('8 bytes  ["user/1"]')
    assert third.split()[0] == str(len(hello() + REQUEST))
    assert '"code":4001,"name":"KEY_NOT_FOUND"' in third


def test_json_has_a_line_for_each_frame() -> None:
    _, request, error = fields(hello() + REQUEST + ERROR)
    assert (request["type"], request["stream"], request["service"], request["method"]) == ("REQUEST", 1, "kv", "get")
    assert request["size"] == len(REQUEST)
    assert request["payload"] == ["user/1"]
    assert isinstance(request["metadata"], dict)
    assert request["metadata"]["timeout_ms"] == 5000
    assert isinstance(error["payload"], dict)
    assert error["payload"]["name"] == "KEY_NOT_FOUND"


def test_hexadecimal_digits_are_read_with_blanks_between_them() -> None:
    digits = "\n".join(f"{byte:02x}" for byte in REQUEST).encode()
    assert lines(digits, "--hex") == lines(REQUEST)
    assert lines(REQUEST.hex().encode(), "--hex") == lines(REQUEST)
    for bad, reason in ((b"zz", "something else than hexadecimal digits"), (b"abc", "half of a byte")):
        ended = decoded(bad, "--hex")
        assert ended.code == 2
        assert reason in ended.err


@pytest.mark.parametrize(
    ("recording", "fault"),
    [
        (REQUEST + REQUEST[:-1], f"{len(REQUEST)}  FAULT: the recording ends within a frame: "),
        (REQUEST + REQUEST[:5], f"{len(REQUEST)}  FAULT: the recording ends within a frame: 5 of 28 bytes are there"),
        (REQUEST + b"\x12\x34" * 20, f"{len(REQUEST)}  FAULT: no frame begins with 1234, but with fa57"),
        (REQUEST + b"\x12", f"{len(REQUEST)}  FAULT: no frame begins with 12, but with fa57"),
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n", "0  FAULT: the bytes are HTTP, not Haptera"),
        (b"*1\r\n$4\r\nPING\r\n", "0  FAULT: the bytes are RESP, not Haptera"),
        (REQUEST[:9] + b"\x01" + REQUEST[10:], "0  FAULT: the header is damaged: its CRC-32C is "),
        (encode_frame(FrameType.PING, 0, 0, bytes(5000)), "0  FAULT: a frame has 5000 bytes of metadata"),
    ],
    ids=["cut", "cut header", "no frame", "no byte of one", "HTTP", "RESP", "damaged header", "long metadata"],
)
def test_bytes_that_cannot_be_read_on_end_with_their_offset(recording: bytes, fault: str) -> None:
    ended = decoded(recording)
    assert ended.code == 1
    assert ended.text.splitlines()[-1].strip().startswith(fault)
    assert fields(recording)[-1]["offset"] == int(fault.split(maxsplit=1)[0])


def test_a_damaged_body_is_a_fault_of_its_frame_alone() -> None:
    ended = decoded(REQUEST[:-1] + b"X" + ERROR)
    assert ended.code == 1
    first, fault, second = ended.text.splitlines()
    assert "kv.get" in first
    assert "FAULT: the CRC-32C of the body is" in fault
    assert "ERROR" in second


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        (encode_frame(FrameType.REQUEST, 0, 1, b"\x09kv", b""), "ends within its service's and method's names"),
        (encode_frame(FrameType.RESPONSE, 0, 1, b"\x02\x09", b""), "metadata is cut short"),
        (encode_frame(FrameType.RESPONSE, 0, 1, b"\xfe\x00", b""), "a metadata tag is critical and not known"),
        (
            encode_frame(
                FrameType.ITEM, COMPRESSED, 1, encode_entry(Tag.RAW_LENGTH, (2**32 - 1).to_bytes(4, "big")), b"x"
            ),
            "claims to be one of 4294967295 bytes",
        ),
        (
            encode_frame(FrameType.ITEM, COMPRESSED, 1, encode_entry(Tag.RAW_LENGTH, (10).to_bytes(4, "big")), b"x"),
            "is not a zstd frame",
        ),
    ],
    ids=["names", "an entry", "a critical tag", "a huge claim", "no zstd"],
)
def test_content_that_is_malformed_is_told_and_the_next_frame_follows(frame: bytes, fault: str) -> None:
    ended = decoded(frame + REQUEST)
    assert ended.code == 1
    assert fault in ended.text
    assert ended.text.splitlines()[-1].endswith('["user/1"]')


def test_random_bytes_and_damage_never_break_the_command() -> None:
    draw = random.Random(7)
    whole = hello() + REQUEST * 3 + ERROR
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        recording = bytes(damaged[: draw.randrange(1, len(damaged) + 1)])
        # With right checksums the hostile content itself is read, too.
        sound = encode_frame(draw.randrange(256), draw.randrange(65536) & ~4, 1, draw.randbytes(9), draw.randbytes(40))
        for data in (recording, sound, draw.randbytes(100)):
            ended = decoded(data, "--payload", "full")
            assert ended.code in {0, 1}
            assert ended.err == ""
            assert all(line.isprintable() for line in ended.text.splitlines())


def test_compressed_payloads_are_unpacked() -> None:
    payload = encode(["value " * 500])
    metadata = encode_entry(Tag.RAW_LENGTH, len(payload).to_bytes(4, "big"))
    frame = encode_frame(FrameType.ITEM, COMPRESSED, 3, metadata, Codec().compress(payload))
    (told,) = fields(frame, "--payload", "full")
    assert told["payload"] == ["value " * 500]
    assert told["flags"] == ["compressed"]


def test_payloads_are_short_whole_or_left_out_and_obeyed_by_no_terminal() -> None:
    value = b"\x1b[2J" + b"x" * 500
    frame = encode_frame(FrameType.ITEM, MORE, 3, b"", value)
    (short,), (whole,), (none,) = (lines(frame, "--payload", how) for how in ("short", "full", "none"))
    assert short.endswith("x…")
    assert len(short) < 200
    assert whole.endswith("x" * 500)
    assert none.endswith("504 bytes")
    assert "\x1b" not in short + whole + none


def test_a_password_on_the_wire_is_not_shown() -> None:
    proof = encode(["PLAIN", b"\0ada\0" + PASSWORD.encode()])
    frame = encode_frame(FrameType.REQUEST, 0, 1, encode_route("session", "authenticate"), proof)
    for how in ("short", "full", "none"):
        (line,) = lines(frame, "--payload", how)
        assert line.endswith("(a proof of identity is not shown)")


def signed(signer: Signer, frame: bytes, payload: bytes) -> bytes:
    return b"".join(signer.seal(frame[: len(frame) - len(payload)], payload))


def test_signatures_are_verified_by_the_key_and_both_handshake_frames(tmp_path: Path) -> None:
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(bytes(range(32)))
    other.write_bytes(bytes(range(1, 33)))
    for each in (key, other):
        each.chmod(0o600)
    welcome = encode_frame(FrameType.WELCOME, 0, 0, b"", b"\x80")
    hello_frame = hello()
    dialer, acceptor = map(Signer, preshared_keys(key.read_bytes(), hello_frame, welcome))
    payload = encode(["user/1"])
    head = encode_head(FrameType.REQUEST, 0, 1, METADATA, payload)
    up = hello_frame + signed(dialer, head + payload, payload) + signed(dialer, head + payload, payload)
    down = welcome + signed(acceptor, ERROR, ERROR[28:])
    (tmp_path / "up").write_bytes(up)
    (tmp_path / "down").write_bytes(down)
    files = (str(tmp_path / "down"), str(tmp_path / "up"))  # in any order
    ended = run("decode", *files, "--key-file", str(key))
    assert ended.code == 0
    assert ended.text.count("signature right") == 3
    ended = run("decode", *files, "--key-file", str(other))
    assert ended.code == 1
    assert ended.text.count("FAULT: the signature is wrong") == 3
    ended = run("decode", *files)  # without the key the frames are shown all the same
    assert ended.code == 0
    assert ended.text.count("signed") == 3
    ended = run("decode", files[0], "--key-file", str(key))
    assert ended.code == 2
    assert "--key-file needs the files of both directions" in ended.err


def test_standard_input_is_shown_as_it_comes() -> None:
    """A recording may still be written: each frame is shown when it is whole."""
    decoding = subprocess.Popen(
        [sys.executable, "-m", "haptera", "decode"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    assert decoding.stdin is not None
    assert decoding.stdout is not None
    decoding.stdin.write(REQUEST[:40])
    decoding.stdin.write(REQUEST[40:])
    assert b"kv.get" in decoding.stdout.readline()
    decoding.stdin.write(ERROR[:-1])
    decoding.stdin.close()
    assert b"the recording ends within a frame" in decoding.stdout.read()
    assert decoding.wait() == 1
    decoding.stdout.close()


AUTHENTICATE = encode_route("session", "authenticate")
PROOF = encode(["PLAIN", b"\0user\0" + PASSWORD.encode()])


def flipped(frame: bytes, text: bytes) -> bytes:
    """The frame with another bit in the first letter of a text."""
    at = frame.index(text)
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1 :]


@pytest.mark.parametrize(
    "damaged",
    [
        encode_frame(FrameType.REQUEST, 0, 1, AUTHENTICATE + b"\xff\x09x", PROOF),
        flipped(encode_frame(FrameType.REQUEST, 0, 1, AUTHENTICATE, PROOF), b"authenticate"),
        flipped(encode_frame(FrameType.REQUEST, 0, 1, AUTHENTICATE, PROOF), b"session"),
        flipped(encode_frame(FrameType.REQUEST, MORE, 1, AUTHENTICATE, b""), b"session")
        + encode_frame(FrameType.REQUEST, CONTINUED, 1, b"", PROOF),
    ],
)
def test_a_proof_of_identity_whose_frame_is_damaged_is_not_shown(damaged: bytes) -> None:
    for payload in ("short", "full", "none"):
        *_, last = fields(hello() + damaged, "--payload", payload)
        assert last["payload"] == "(not shown: the request is damaged, and may be a proof of identity)"


def test_proofs_whose_pieces_are_mixed_are_not_shown() -> None:
    many = range(1, 2400, 2)
    pieces = [encode_frame(FrameType.REQUEST, MORE, stream, AUTHENTICATE, b"") for stream in many]
    pieces += [encode_frame(FrameType.REQUEST, CONTINUED, stream, b"", PROOF) for stream in many]
    shown = fields(hello() + b"".join(pieces), "--payload", "full")[1:]
    assert all(str(each["payload"]).startswith("(") for each in shown)


def test_a_request_on_the_stream_of_a_proof_that_has_ended_is_shown() -> None:
    proof = encode_frame(FrameType.REQUEST, 0, 1, AUTHENTICATE, PROOF)
    assert fields(hello() + proof + REQUEST)[-1]["payload"] == ["user/1"]
