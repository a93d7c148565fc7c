"""Lines that come while a prompt waits are printed, each of them and once."""

from __future__ import annotations

import asyncio

import pytest

from haptera.cli.shell.above_prompt import LINES_MAX, AbovePrompt

#: Turns of the loop after which all that was written is printed.
TURNS = 50


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.parametrize("between", range(8))
def test_a_line_that_comes_just_after_another_was_printed_is_printed_too(
    between: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    async def write() -> None:
        above = AbovePrompt(lambda: True)
        above.write(b"first\n")
        await turns(between)
        above.write(b"second\n")
        await turns(TURNS)

    asyncio.run(write())
    assert capsysbinary.readouterr().out == b"first\nsecond\n"


def test_of_a_flood_the_newest_lines_are_printed(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    async def write() -> None:
        above = AbovePrompt(lambda: True)
        for number in range(LINES_MAX + 2):
            above.write(b"%d\n" % number)
        await turns(TURNS)

    asyncio.run(write())
    lines = capsysbinary.readouterr().out.decode().splitlines()
    assert lines == ["… 2 lines were left out", *map(str, range(2, LINES_MAX + 2))]
