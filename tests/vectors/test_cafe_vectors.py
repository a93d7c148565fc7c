"""spec/vectors/cafe.json: a node answers what the vectors say, whatever pieces the bytes come in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from haptera.dialects.cafe.bodies import message
from haptera.dialects.cafe.conversation import Conversation
from haptera.dialects.cafe.message_keys import ConnectionKey
from haptera.dialects.cafe.message_reader import MessageReader
from haptera.testing import virtual_clock
from haptera.wire import Codec
from tests.unit.node.nodes import done, opened

if TYPE_CHECKING:
    from haptera.node.commands import Result

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "spec" / "vectors" / "cafe.json").read_text(encoding="utf-8")
)["vectors"]
BIND = 4
ENCRYPTED = 2


def nonces_of(vector: dict[str, Any]) -> list[bytes]:
    """The nonces that the server has drawn in its answers, in order."""
    found: list[bytes] = []
    asked = b""
    for step in vector["steps"]:
        data = bytes.fromhex(step.get("hex", ""))
        if step["from"] == "client":
            asked = data
        elif data and asked[3] == BIND:
            found.append(data[48:])
        elif data and data[8] & ENCRYPTED:
            found.append(data[48:60])
    return found


@pytest.mark.parametrize("size", [1, 1 << 20])
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
@virtual_clock
async def test_a_node_answers_as_the_vectors_say(vector: dict[str, Any], size: int) -> None:
    nonces = iter(nonces_of(vector))
    shared = ConnectionKey(bytes.fromhex(vector["shared_key"]))
    conversation = Conversation(
        shared, require_bind=vector["require_bind"], entropy=lambda size: _next(nonces, size), codec=Codec()
    )
    async with opened() as node:
        answers: list[bytes] = []
        for step in vector["steps"]:
            if step["from"] == "client":
                data = bytes.fromhex(step["hex"])
                answers = []
                for at in range(0, len(data), size):
                    conversation.receive(data[at : at + size])
                    for asked in conversation.asked(10, 1 << 30):
                        (result,) = await done(node, asked.op)
                        answers += [conversation.answer(asked, cast("Result", result))]
                answers += conversation.refusals
                conversation.refusals.clear()
            else:
                (answer,) = answers
                if "hex" in step:
                    assert answer.hex() == step["hex"]
                else:
                    key = ConnectionKey(bytes.fromhex(step["key"]))
                    (read,) = MessageReader(key).receive(answer)
                    assert (read.opcode, read.request_id) == (step["opcode"], step["request_id"])
                    assert int.from_bytes(read.value[:2], "big") == step["code"]
                    assert read.value[2:].decode()
        assert conversation.ended == vector["closes"]
    assert not list(nonces)


def _next(nonces: Any, size: int) -> bytes:
    nonce: bytes = next(nonces)
    assert len(nonce) == size
    return nonce


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_messages_are_written_as_the_vectors_have_them(vector: dict[str, Any]) -> None:
    """As far as they hold nothing that our side would never write."""
    key = ConnectionKey(bytes.fromhex(vector["shared_key"]))
    for step in vector["steps"]:
        data = bytes.fromhex(step.get("hex", ""))
        reader = MessageReader(key)
        for read in reader.receive(data):
            if not (read.flags & ENCRYPTED or read.reserved):
                written = message(key, read.opcode, read.request_id, read.flags, read.key, read.value)
                assert written.hex() == step["hex"]
