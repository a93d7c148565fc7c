"""The trace of examples/one_trace.py, through four processes, is whole, and is the one that the page about it shows."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk", reason="the development environment is not complete")

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "observability.md"

#: Each span of the trace behind its parent: the process, the kind and the name of both.
LINKS = {
    ("program CLIENT orders/place", "program INTERNAL buy apples"),
    ("orders SERVER orders/place", "program CLIENT orders/place"),
    ("orders CLIENT get kv", "orders SERVER orders/place"),
    ("store SERVER kv/get", "orders CLIENT get kv"),
    ("orders CLIENT stock/take", "orders SERVER orders/place"),
    ("stock SERVER stock/take", "orders CLIENT stock/take"),
    ("stock CLIENT increment kv", "stock SERVER stock/take"),
    ("store SERVER kv/increment", "stock CLIENT increment kv"),
    ("orders CLIENT set_many kv", "orders SERVER orders/place"),
    ("store SERVER kv/set_many", "orders CLIENT set_many kv"),
}


def test_a_trace_goes_through_two_services_and_the_store_as_the_page_shows(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", str(ROOT / "examples" / "one_trace.py"), "--keep"]
    done = subprocess.run([*command, str(tmp_path)], check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    spans = {}
    for file in tmp_path.glob("*.jsonl"):
        for line in file.read_text().splitlines():
            span = json.loads(line)
            spans[span["context"]["span_id"]] = span
    names = {
        key: f"{span['process']} {span['kind'].removeprefix('SpanKind.')} {span['name']}" for key, span in spans.items()
    }
    assert {(names[key], names[span["parent_id"]]) for key, span in spans.items() if span["parent_id"]} == LINKS
    assert len({span["context"]["trace_id"] for span in spans.values()}) == 1
    (batch,) = [span for key, span in spans.items() if names[key] == "orders CLIENT set_many kv"]
    assert batch["attributes"] == {
        "db.system.name": "haptera",
        "db.namespace": "kv",
        "db.operation.name": "set_many",
        "db.operation.batch.size": 2,
        "server.address": str(tmp_path / "data" / "haptera.sock"),
    }
    (picture,) = re.findall(r"```mermaid\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert done.stdout == picture
