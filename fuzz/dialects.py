"""The target of the requests of RESP (haptera.dialects.resp): two bytes of options, then what a client sends."""

from __future__ import annotations

from random import Random
from typing import Final

from haptera.dialects.resp.bounds import ARGUMENT_OVERHEAD, ARGUMENTS_MAX, BULK_SIZE_MAX, REQUEST_SIZE_MAX
from haptera.dialects.resp.redis_glob import redis_glob
from haptera.dialects.resp.request_parser import ProtocolFault, RequestParser

#: The options at the head of an input: whether the side has logged in, and how the bytes are cut.
HEAD_SIZE: Final = 2


def check_requests(data: bytes) -> None:
    """The same commands, or the same fault behind them, however the bytes are cut, and no more held than has come."""
    head, stream = data[:HEAD_SIZE], data[HEAD_SIZE:]
    limited = bool(head[:1]) and bool(head[0] & 1)
    whole = _commands([stream], limited=limited)
    random = Random(head)
    cuts = sorted(random.randrange(len(stream) + 1) for _ in range(8))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert _commands(pieces, limited=limited) == whole, "the cut makes a difference"
    for arguments in whole:
        if isinstance(arguments, list):
            assert 0 < len(arguments) <= ARGUMENTS_MAX
            assert all(len(each) <= BULK_SIZE_MAX for each in arguments)
            for pattern in arguments[:2]:
                redis_glob(pattern[:200]).matches(arguments[-1][:200])


def _commands(pieces: list[bytes], *, limited: bool) -> list[list[bytes] | str]:
    parser, found, come = RequestParser(), list[list[bytes] | str](), 0
    parser.limited = limited
    try:
        for piece in pieces:
            parser.feed(piece)
            come += len(piece)
            while (arguments := parser.next()) is not None:
                if arguments:  # none stand for an empty line, which is passed over
                    found.append(arguments)
            assert parser.unparsed <= come, "more is held than has come"
            assert parser.held <= REQUEST_SIZE_MAX + come + ARGUMENT_OVERHEAD
            assert (parser.missing is None) == parser.idle
    except ProtocolFault as fault:
        found.append(str(fault))
    return found
