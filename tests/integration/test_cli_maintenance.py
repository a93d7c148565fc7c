"""`haptera maintenance` against a served node."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from haptera.cli.exit_codes import FAILED, USAGE
from haptera.testing import node_in_thread
from tests.integration.commands import Ended, run

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def haptera(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with node_in_thread(listen="tcp") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        yield run


def ok(ended: Ended) -> str:
    assert (ended.code, ended.err) == (0, "")
    return ended.text


def test_a_store_is_closed_to_changes_and_opened_again(haptera: Any) -> None:
    assert ok(haptera("maintenance", "status")) == "off\n"
    assert ok(haptera("set", "k", "v")) == "1\n"
    began = ok(haptera("maintenance", "on", "--reason", "the disk is replaced"))
    assert re.fullmatch(r"on\t\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\tthe disk is replaced\n", began)
    assert ok(haptera("maintenance", "status")) == began
    refused = haptera("incr", "n")
    assert refused.code == FAILED
    assert "MAINTENANCE_MODE (5004)" in refused.err
    assert "the disk is replaced" in refused.err
    assert ok(haptera("get", "k")) == "v\n"
    assert "maintenance: true\n" in ok(haptera("status"))
    fields = json.loads(ok(haptera("maintenance", "status", "--json")))
    assert (fields["on"], fields["reason"], fields["since_ms"] > 0) == (True, "the disk is replaced", True)
    assert ok(haptera("maintenance", "off")) == "off\n"
    assert ok(haptera("incr", "n")) == "1\n"


def test_a_reason_is_needed_and_has_to_be_one(haptera: Any) -> None:
    assert haptera("maintenance", "on").code == USAGE
    refused = haptera("maintenance", "on", "--reason", "a\nb")
    assert (refused.code, "INVALID_ARGUMENT (3003)" in refused.err) == (USAGE, True)
    assert ok(haptera("maintenance", "status")) == "off\n"
