"""Globs against the plainest matcher there is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from haptera.state.glob import MalformedGlob, compile_glob

ALPHABET = "ab]-"


def plain(glob: list[str], key: str) -> bool:
    """Elements: a star, a question mark, or the characters that one place may hold (a class)."""
    if not glob:
        return not key
    first, rest = glob[0], glob[1:]
    if first == "*":
        return any(plain(rest, key[at:]) for at in range(len(key) + 1))
    return (
        bool(key)
        and (first == "?" or (key[0] not in first[1:] if first[0] == "!" else key[0] in first))
        and plain(rest, key[1:])
    )


def text_of(element: str) -> str:
    if element in {"*", "?"}:
        return element
    if len(element) == 1:
        return f"\\{element}"
    negated = element[0] == "!"
    return "[" + "!" * negated + "".join(f"\\{char}" for char in element[negated:]) + "]"


literals = st.sampled_from(ALPHABET)
classes = st.builds(
    lambda negated, chars: "!" * negated + chars, st.booleans(), st.text(ALPHABET, min_size=2, max_size=3)
)
elements = st.lists(st.one_of(st.just("*"), st.just("?"), literals, classes), max_size=8)


@given(elements, st.text(ALPHABET, max_size=10))
def test_a_glob_matches_as_the_plain_matcher_says(glob: list[str], key: str) -> None:
    compiled = compile_glob("".join(map(text_of, glob)))
    expected = plain(glob, key)
    assert compiled.matches(key) == expected
    if expected:
        assert key.startswith(compiled.prefix)
    if compiled.cost == 0:
        assert key.startswith(compiled.prefix) == expected


@given(st.text(st.sampled_from("ab*?[]!^-\\.\n"), max_size=20), st.text(st.sampled_from("ab.\n"), max_size=20))
def test_any_text_is_a_glob_or_malformed(glob: str, key: str) -> None:
    try:
        compiled = compile_glob(glob)
    except MalformedGlob:
        return
    if compiled.matches(key):
        assert key.startswith(compiled.prefix)
