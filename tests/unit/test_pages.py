"""The pages of the project: their links lead somewhere, and the site names each of them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from haptera.cli.main import COMMANDS
from tools import markdown_links, site_commands, site_pages, site_reference
from tools.markdown_links import ROOT, anchor_of, anchors, broken, links, pages

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert [*broken(page)] == []


def test_a_broken_link_is_named_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown_links, "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# Other\n", encoding="utf-8")
    page = tmp_path / "page.md"
    page.write_text(
        "# Page\n\n[a](#nowhere), [b](nothing.md), [c](../page.md), [d](other.md#other), [e](other.md#more)\n\n"
        "`[code](x.md)` and [elsewhere](https://example.org)\n\n    [code](y.md)\n\n```\n[code](z.md)\n```\n\n"
        "[defined]: gone.txt\n\n![picture](gone.svg) [`named`](gone.md)\n",
        encoding="utf-8",
    )
    assert [*broken(page)] == [
        "page.md:3: #nowhere: no such heading",
        "page.md:3: nothing.md: no such file",
        "page.md:3: ../page.md: no such file",
        "page.md:3: other.md#more: no such heading",
        "page.md:13: gone.txt: no such file",
        "page.md:15: gone.svg: no such file",
        "page.md:15: gone.md: no such file",
    ]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Two commands", "two-commands"),
        ("7.3 `scan`: a range", "73-scan-a-range"),
        ("Beside Redis: `redis_compare.py`", "beside-redis-redis_comparepy"),
        ("[A link](x.md), and more", "a-link-and-more"),
    ],
)
def test_an_anchor_is_the_one_of_github(heading: str, anchor: str) -> None:
    assert anchor_of(heading) == anchor


def test_blocks_of_code_have_no_headings() -> None:
    assert anchors("# One\n\n```sh\n# a comment\n```\n\n    # another\n") == {"one"}


def test_the_navigation_of_the_site_names_each_page_once() -> None:
    named = site_pages.navigation()
    made = {"commands.md", *(f"reference/{module}.md" for module in site_reference.MODULES)}
    assert len(named) == len(set(named))
    assert set(named) == made | {page.relative_to(ROOT).as_posix() for page in pages()}


def test_a_link_to_a_program_leads_to_a_page_that_shows_it(tmp_path: Path) -> None:
    site_pages.stage(tmp_path)
    site_reference.stage(tmp_path)
    site_commands.stage(tmp_path)
    assert [name for name in site_pages.navigation() if not (tmp_path / name).is_file()] == []
    examples = (tmp_path / "examples" / "README.md").read_text(encoding="utf-8")
    assert "(two_peers.py.md)" in examples
    shown = (tmp_path / "examples" / "two_peers.py.md").read_text(encoding="utf-8")
    assert (ROOT / "examples" / "two_peers.py").read_text(encoding="utf-8").rstrip() in shown
    for page in tmp_path.rglob("*.md"):
        for link in links(page.read_text(encoding="utf-8")):
            assert link.elsewhere or not link.path or (page.parent / link.path).exists(), (page, link)


def test_the_page_of_commands_has_each_command_with_its_help() -> None:
    page = site_commands.page()
    assert [name for name in COMMANDS if page.count(f"\n### `haptera {name}`\n") != 1] == []
    assert page.count("\n## `haptera`\n") == 1
    assert page.count("\n### `haptera get`\n") == 1
    assert page.count("\n#### `haptera user add`\n") == 1
    assert "Usage: haptera user add [OPTIONS] NAME" in page
    assert "-h, --help" in page
    assert "\nhaptera set user/1 'Ada Lovelace' --ttl 3600 --if-absent\n" in page.partition("### `haptera set`")[2]


@pytest.mark.parametrize("module", site_reference.MODULES)
def test_the_page_of_a_module_names_all_that_it_gives(module: str) -> None:
    page = site_reference.page(module)
    assert page.startswith(f"# `{module}`\n")
    named = {name for name in import_module(module).__all__ if f"\n::: {module}.{name}\n" in page}
    assert named == {*import_module(module).__all__} - site_reference.NO_ENTRY


@pytest.mark.parametrize("name", sorted(site_reference.INTERNAL))
def test_the_reference_leaves_out_members_that_are_there(name: str) -> None:
    module, _, described = name.rpartition(".")
    members = site_reference.INTERNAL[name]
    assert [each for each in members if not hasattr(getattr(import_module(module), described), each)] == []
    entry = site_reference.page(module).partition(f"::: {name}\n")[2].partition(":::")[0]
    assert [each for each in members if f'"!^{each}$"' not in entry] == []
