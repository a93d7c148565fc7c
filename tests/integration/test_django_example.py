"""The Django project of examples/: its own tests, the development server, and gunicorn with forked workers."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("django", reason="the development environment is not complete")
pytest.importorskip("gunicorn", reason="the development environment is not complete")

import haptera.sync
from haptera.testing import node_in_thread
from tests.support.programs import EXAMPLES, WAIT_S, running

if TYPE_CHECKING:
    from pathlib import Path

PROJECT = EXAMPLES / "django_shop"


def order(base: str, key: str) -> tuple[int, Any]:
    """Send an order: the status and the answer."""
    body = json.dumps({"item": "apple", "count": 1}).encode()
    request = urllib.request.Request(f"{base}/orders", body, {"Idempotency-Key": key})
    try:
        with urllib.request.urlopen(request, timeout=WAIT_S) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_tests_of_the_project_pass_without_a_warning() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "always::ResourceWarning", "manage.py", "test"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr
    assert "Warning" not in done.stderr


SERVERS = {
    "the development server": ["manage.py", "runserver", "--noreload", "127.0.0.1:{port}"],
    "forked workers": ["-m", "gunicorn", "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:{port}", "shop.wsgi"],
    "workers forked from a loaded program": [
        *("-m", "gunicorn", "--preload", "--workers", "2", "--threads", "4", "--bind", "127.0.0.1:{port}", "shop.wsgi")
    ],
}


@pytest.mark.parametrize("name", SERVERS)
def test_equal_orders_to_many_threads_are_taken_once(name: str, tmp_path: Path, unused_port: int) -> None:
    base = f"http://127.0.0.1:{unused_port}"
    arguments = [each.format(port=unused_port) for each in SERVERS[name]]
    with node_in_thread(storage="memory", listen="tcp") as url, haptera.sync.connect(url) as db:
        db.set("stock/apple", "100")
        with running(arguments, PROJECT, HAPTERA_URL=url, DJANGO_DEBUG="1", TMPDIR=str(tmp_path)) as program:
            program.printed(f"(Listening at:|development server at) {base}")
            with ThreadPoolExecutor(8) as threads:
                answers = list(threads.map(lambda number: order(base, f"k{number % 4}"), range(40)))
            assert sorted(status for status, _ in answers) == [200] * 36 + [201] * 4
            assert {answer["number"] for _, answer in answers} == {1, 2, 3, 4}
            entry = db.get("stock/apple")
            assert entry is not None
            assert entry.text == "96"
            assert db.status()["connections"] <= 3  # one for each worker, and that of this test
            program.end()
        for sign in ("Traceback", "Exception", "unclosed", "never awaited"):
            assert sign not in program.output
