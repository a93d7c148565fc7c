"""The specification agrees with the data beside it and with the code."""

from __future__ import annotations

import re
import struct
import tomllib
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from haptera.errors import TABLE
from haptera.node.metrics import COUNTERS, LABELLED, MEASURED

SPEC = Path(__file__).parents[2] / "spec"
PROTOCOL = (SPEC / "protocol.md").read_text(encoding="utf-8")


def test_the_table_of_errors_in_the_protocol_is_that_of_the_data_file() -> None:
    section = PROTOCOL.partition("## 6. Errors")[2].partition("## 7.")[0]
    listed = {int(code): name for code, name in re.findall(r"\| (\d{4}) \| ([A-Z_]+)", section)}
    assert listed == {code: name for code, (name, _, _) in TABLE.items()}


def test_the_example_frame_in_the_protocol_has_the_right_checksums() -> None:
    example = PROTOCOL.partition("*Example.* PING")[2].partition("### ")[0]
    lines = re.findall(r"^    ((?:[0-9a-f]{2} )+|(?:[0-9a-f]{2} ?)+?)  +\w", example, re.MULTILINE)
    frame = bytes.fromhex("".join(lines))
    header, payload = frame[:28], frame[28:]
    magic, version, kind, flags, metadata_length, stream, length, body_crc, header_crc = struct.unpack(
        ">HBBHHQIII", header
    )
    assert (magic, version, kind, flags, metadata_length, stream) == (0xFA57, 1, 0x20, 0, 0, 0)
    assert length == len(payload) == 8
    assert body_crc == google_crc32c.value(payload)
    assert header_crc == google_crc32c.value(header[:24])


def test_the_crc_is_castagnolis() -> None:
    assert "E3069283" in PROTOCOL
    assert google_crc32c.value(b"123456789") == 0xE3069283


def metrics() -> list[dict[str, Any]]:
    document = tomllib.loads((SPEC / "metrics.toml").read_text(encoding="utf-8"))
    listed: list[dict[str, Any]] = document["metric"]
    return listed


def test_the_metrics_are_those_of_the_data_file() -> None:
    kinds = {metric["name"]: metric["kind"] for metric in metrics()}
    assert kinds == dict.fromkeys((*COUNTERS, *LABELLED), "counter") | MEASURED
    assert {metric["name"]: metric["label"] for metric in metrics() if "label" in metric} == LABELLED
    assert [metric["name"] for metric in metrics()] == sorted(kinds)


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: str(metric["name"]))
def test_a_metric_is_named_for_its_kind_and_unit(metric: dict[str, Any]) -> None:
    assert metric.keys() - {"label"} == {"name", "kind", "unit", "help"}
    assert metric["name"].endswith("_total") == (metric["kind"] == "counter")
    if metric["unit"] in {"bytes", "seconds"}:
        assert metric["name"].removesuffix("_total").endswith(metric["unit"])
    assert metric["help"].endswith(".")


@pytest.mark.parametrize("document", sorted(SPEC.glob("*.md")), ids=lambda path: str(path.name))
def test_links_lead_somewhere(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    headings = {_anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings, target
        elif "://" not in target:
            assert (SPEC / target.partition("#")[0]).exists(), target


def _anchor(heading: str) -> str:
    """As the usual renderers make it: lower case, signs dropped, spaces as hyphens."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
