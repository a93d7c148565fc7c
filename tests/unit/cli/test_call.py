"""`haptera call`, `haptera services` and `haptera completion`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from haptera.testing import node_in_thread
from haptera.wire import FrameDecoder, FrameType, encode_frame
from tests.integration.commands import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with node_in_thread(listen="tcp") as url:
        run("set", "user/1", "ada", "--url", url)
        yield url


def test_services_are_listed_with_their_methods(url: str) -> None:
    listed = dict(line.split("\t") for line in run("services", "--url", url).text.splitlines())
    assert {"kv", "server", "session"} <= listed.keys()
    assert "get" in listed["kv"].split(",")
    first = json.loads(run("services", "--json", "--url", url).text.splitlines()[0])
    assert first.keys() == {"service", "methods"}


def test_a_method_is_called_with_json_and_answers_in_json(url: str) -> None:
    ended = run("call", "kv", "set", '["bin", {"base64": "/wA="}]', "--url", url)
    assert ended.code == 0
    assert run("get", "bin", "--raw", "--url", url).out == b"\xff\x00"
    assert json.loads(run("call", "kv", "get", '["bin"]', "--url", url).text)[0] == {"base64": "/wA="}
    assert json.loads(run("call", "kv", "get", "-", "--url", url, stdin=b'["user/1"]').text)[0] == {"base64": "YWRh"}


def test_items_are_written_and_then_the_result(url: str) -> None:
    lines = run("call", "kv", "scan", '[{"prefix": "user/"}]', "--stream", "--url", url).text.splitlines()
    assert json.loads(lines[0])[0][0] == "user/1"
    assert json.loads(lines[1])[:2] == [1, "user/1"]


def test_raw_payloads_pass_as_they_are(url: str) -> None:
    answer = run("call", "kv", "exists", "-", "--raw", "--url", url, stdin=b"\x91\xa6user/1")
    assert answer.out == b"\x91\xc3"


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (("kv", "get", '["nope"]'), 1, "KEY_NOT_FOUND"),
        (("kv", "frob"), 5, "UNKNOWN_METHOD"),
        (("kv", "get", "{"), 2, "PAYLOAD is no JSON that can be sent"),
        (("kv", "get", '[{"base64": "?"}]'), 2, "PAYLOAD is no JSON that can be sent"),
        (("kv", "get", "[" * 100_000), 2, "PAYLOAD is no JSON that can be sent"),
    ],
)
def test_a_call_that_fails_is_told(arguments: tuple[str, ...], code: int, named: str, url: str) -> None:
    ended = run("call", *arguments, "--url", url)
    assert named in ended.err
    assert ended.code == code


def answer_one_call(listener: socket.socket, answer: bytes) -> None:
    """Welcome one connection, and answer its first request with a payload."""
    connection, _ = listener.accept()
    with connection:
        decoder = FrameDecoder(64 * 1024)
        while data := connection.recv(65536):
            for frame in decoder.receive(data) + decoder.receive(b""):
                if frame.type == FrameType.HELLO:
                    told = {
                        "version": 1,
                        "versions": [1],
                        "agent": "impostor/1",
                        "server_id": bytes(16),
                        "session": msgspec.msgpack.decode(frame.payload)["session"],
                        "nonce": bytes(32),
                        "capabilities": ["pipelining"],
                    }
                    connection.sendall(encode_frame(FrameType.WELCOME, 0, 0, b"", msgspec.msgpack.encode(told)))
                elif frame.type == FrameType.REQUEST:
                    connection.sendall(encode_frame(FrameType.RESPONSE, 0, frame.stream, b"", answer))


@pytest.mark.parametrize(
    "answer",
    [b"\x91\x92\xa1\xff\x90", b"\x91" * 5000 + b"\x01", b"\xc1"],
    ids=["text that is not UTF-8", "another type", "no MessagePack"],
)
def test_services_of_a_server_that_answers_otherwise_are_an_error_of_the_server(answer: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer_one_call, args=(listener, answer))
        server.start()
        ended = run("services", "--url", f"haptera://127.0.0.1:{listener.getsockname()[1]}")
        server.join()
    assert "the server's answer to session.describe" in ended.err
    assert "Traceback" not in ended.err
    assert ended.code == 5


# -- completion


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which `haptera` is on PATH."""
    program = tmp_path / "haptera"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m haptera "$@"\n')
    program.chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on PATH (Debian: bash)")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("haptera", "dev"), ["dev-certs"]),
        (("haptera", "lease", "gr"), ["grant"]),
        (("haptera", "--json", "set", "--if-a"), ["--if-absent"]),
        (("haptera", "completion", "f"), ["fish"]),
        (("haptera", "get", "a"), []),
    ],
)
def test_bash_completes_commands_options_and_choices(
    words: tuple[str, ...], offered: list[str], environment: dict[str, str]
) -> None:
    script = (
        f"{run('completion', 'bash').text}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}\n"
        '_haptera_completion haptera; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    ended = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (ended.stdout.split(), ended.stderr) == (offered, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not on PATH (Debian: fish)")
def test_fish_completes_commands_with_their_lines(environment: dict[str, str], tmp_path: Path) -> None:
    script = f"{run('completion', 'fish').text}\ncomplete -C 'haptera dev'"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", script],
        env={**environment, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ended.stdout.startswith("dev-certs\t")
