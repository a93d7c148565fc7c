"""The FastAPI application of examples/: conditional requests, events over a restart of its node, and its end."""

from __future__ import annotations

import importlib
import re
import signal
import sys
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi", reason="the development environment is not complete")
pytest.importorskip("uvicorn", reason="the development environment is not complete")
pytest.importorskip("httpx2", reason="the development environment is not complete")

import httpx2
from fastapi.testclient import TestClient

import haptera.sync
from haptera.testing import node_in_thread
from tests.support.programs import EXAMPLES, WAIT_S, Running, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def served(directory: Path, url: str) -> Iterator[tuple[Running, Any]]:
    """The application under uvicorn, and a client of it."""
    arguments = ["-m", "uvicorn", "--app-dir", str(EXAMPLES / "fastapi_flags"), "--port", "0", "main:app"]
    with running(arguments, directory, HAPTERA_URL=url) as program:
        base = program.printed(r"running on (http://127.0.0.1:\d+)")[1]
        with httpx2.Client(base_url=base, timeout=WAIT_S, trust_env=False) as client:
            yield program, client


def test_flags_are_changed_by_the_version_that_was_read(tmp_path: Path) -> None:
    on, off = {"enabled": True, "rollout_percent": 100}, {"enabled": False, "rollout_percent": 5}
    with node_in_thread(storage="memory", listen="tcp") as url, served(tmp_path, url) as (_, client):
        assert client.get("/flags/dark").status_code == 404
        made = client.put("/flags/dark", json=on, headers={"If-None-Match": "*"})
        assert (made.status_code, made.json()) == (201, on)
        assert client.put("/flags/dark", json=off, headers={"If-None-Match": "*"}).status_code == 412
        read = client.get("/flags/dark")
        assert (read.json(), read.headers["etag"]) == (on, made.headers["etag"])
        assert client.get("/flags/dark", headers={"If-None-Match": read.headers["etag"]}).status_code == 304
        changed = client.put("/flags/dark", json=off, headers={"If-Match": read.headers["etag"]})
        assert (changed.status_code, changed.json()) == (200, off)
        assert client.put("/flags/dark", json=on, headers={"If-Match": read.headers["etag"]}).status_code == 412
        assert client.put("/flags/dark", json=on, headers={"If-Match": '"none"'}).status_code == 412
        assert client.put("/flags/dark", json=on).status_code == 428
        assert client.put("/flags/dark", json={"enabled": True, "rollout_percent": 101}).status_code == 422
        assert client.get("/flags").json() == {"dark": off}


def test_the_test_client_runs_the_application_on_its_own_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    with node_in_thread(storage="memory") as url:
        monkeypatch.setenv("HAPTERA_URL", url)
        monkeypatch.syspath_prepend(EXAMPLES / "fastapi_flags")
        main = importlib.import_module("main")
        try:
            with TestClient(main.app) as client:
                made = client.put("/flags/dark", json={"enabled": True}, headers={"If-None-Match": "*"})
                assert made.status_code == 201
                assert client.get("/flags").json() == {"dark": {"enabled": True, "rollout_percent": 100}}
        finally:
            del sys.modules["main"]


def test_a_store_that_does_not_answer_is_503(tmp_path: Path, unused_port: int) -> None:
    with served(tmp_path, f"haptera://127.0.0.1:{unused_port}?timeout=0.2") as (program, client):
        refused = client.get("/flags/dark")
        assert refused.status_code == 503
        assert refused.json() == {"detail": "the store does not answer", "outcome": "not_applied"}
        assert refused.headers["retry-after"] == "1"
        assert client.get("/events").text == ""  # it ends, and a browser comes back
        program.end()
        assert "Traceback" not in program.output


def events_of(response: Any) -> Iterator[tuple[str, str, str]]:
    """Each event of a stream: its kind, data and id."""
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields.keys() - {""}:
            yield fields.get("event", ""), fields.get("data", ""), fields.get("id", "")
            fields = {}


def test_a_stream_goes_on_over_a_restart_of_the_node_and_ends_with_the_server(short_path: Path) -> None:
    url = f"haptera+unix://{short_path}/node.sock"
    options: dict[str, Any] = {"data_dir": short_path / "data", "listen": url}
    on, new = '{"enabled": true, "rollout_percent": 100}', {"If-None-Match": "*"}
    with ExitStack() as node:
        node.enter_context(node_in_thread(**options))
        with served(short_path, url) as (program, client):
            client.put("/flags/a", json={"enabled": True}, headers=new).raise_for_status()
            with client.stream("GET", "/events") as response:
                events = events_of(response)
                assert next(events)[:2] == ("present", f'{{"name": "a", "flag": {on}}}')
                kind, _, seen = next(events)
                assert (kind, re.sub("^[0-9a-f]{32}:", "", seen)) == ("synced", "1")
                with haptera.sync.connect(url) as db:
                    db.set("flags/other", "no flag")  # of another program
                node.close()
                node.enter_context(node_in_thread(**options))
                client.put("/flags/b", json={"enabled": True}, headers=new).raise_for_status()
                assert next(events)[:2] == ("put", f'{{"name": "b", "flag": {on}}}')
            with client.stream("GET", "/events", headers={"Last-Event-ID": seen}) as response:
                events = events_of(response)
                assert [next(events)[1][:12] for _ in "ab"] == ['{"name": "a"', '{"name": "b"']
                assert program.end() == -signal.SIGTERM  # the server ends by it, once all is closed
                assert list(events) == []
    assert "flags/other is left out" in program.output
    assert "Application shutdown complete" in program.output
    for sign in ("Traceback", "ERROR", "unclosed", "never awaited"):
        assert sign not in program.output
