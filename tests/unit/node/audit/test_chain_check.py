"""The words for each fault of a chain (spec/audit.md, section 5)."""

from __future__ import annotations

from haptera.node.audit.chain import BEGINNING, Head, sealed
from haptera.node.audit.chain_check import FAULTS_MAX, ChainCheck


def chain(count: int, before: Head = BEGINNING) -> list[bytes]:
    made = []
    for number in range(count):
        line, before = sealed({"a": number}, before)
        made.append(line)
    return made


def check(lines: list[bytes], first: int = 1, heads: tuple[Head, ...] = ()) -> ChainCheck:
    found = ChainCheck(heads)
    found.begin_file("f", first)
    end = 0
    for line in lines:
        end += len(line) + 1
        found.add_line(line, end)
    found.end()
    return found


def problems(lines: list[bytes], first: int = 1) -> list[tuple[int, str]]:
    return [(fault.line, fault.problem) for fault in check(lines, first).faults]


def test_a_whole_chain_has_no_fault() -> None:
    found = check(chain(5))
    assert (found.faults, found.lines, found.first, found.head.sequence) == ([], 5, 1, 5)


def test_lines_that_were_taken_out_are_named_by_their_neighbours() -> None:
    lines = chain(6)
    assert problems(lines[:2] + lines[4:]) == [(3, "line 5 stands behind 2: what was between them is missing")]


def test_lines_that_changed_places_are_named() -> None:
    lines = chain(4)
    assert problems([lines[0], lines[2], lines[1], lines[3]]) == [
        (2, "line 3 stands behind 1: what was between them is missing"),
        (3, "line 2 stands behind 3: it was put in, or moved"),
        (4, "line 4 stands behind 2: what was between them is missing"),
    ]


def test_a_line_that_was_made_again_with_its_check_does_not_fit_the_next() -> None:
    lines = chain(4)
    _, head = sealed({"a": 0}, BEGINNING)
    lines[1] = sealed({"a": "forged"}, head)[0]
    assert problems(lines) == [(3, "it does not fit the line before it: one of the two was changed")]


def test_a_file_whose_first_line_is_not_the_one_of_its_name_is_named() -> None:
    assert problems(chain(2), first=3) == [(1, "the file begins with line 1, and its name says 3")]


def test_a_first_line_that_names_another_before_it_is_named() -> None:
    line, _ = sealed({"a": 0}, Head(0, b"x" * 32))
    assert problems([line]) == [(1, "the first line of a chain names a line before it")]


def test_faults_beyond_a_bound_are_counted() -> None:
    found = check([b"noise"] * (FAULTS_MAX + 5))
    assert (len(found.faults), found.omitted, found.sound) == (FAULTS_MAX, 5, False)


def test_bytes_without_an_end_are_a_fault_unless_the_file_is_the_last() -> None:
    lines = chain(3)
    for last in (False, True):
        found = ChainCheck()
        found.begin_file("f", 1)
        found.add_line(lines[0], len(lines[0]) + 1)
        found.add_rest(lines[1][:10], last=last)
        assert (found.torn is not None, found.sound) == (last, last)


def test_a_head_is_found_where_its_line_stands() -> None:
    lines, heads = chain(3), []
    before = BEGINNING
    for number in range(3):
        _, before = sealed({"a": number}, before)
        heads.append(before)
    assert check(lines, heads=tuple(heads)).sound
    assert not check(lines, heads=(Head(2, bytes(32)),)).sound
    assert not check(lines[:2], heads=(heads[2],)).sound
