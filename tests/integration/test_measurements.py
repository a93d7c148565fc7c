"""The measurements of bench/ run, in small, and find what they say they measure."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from bench import (
    attacks,
    cafe,
    codec,
    copies,
    expiry,
    idle,
    leases,
    memory,
    memory_after,
    processes,
    redis_compare,
    replay,
    scans,
    startup,
    storage,
    sync_compare,
    tls,
    transactions,
    watches,
)

of_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the system does not tell of wake-ups")


def _found(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert found["environment"]["cores"]
    return found


def test_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert codec.main(["--rounds", "1", "--seconds", "0.001", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["value_size"] for result in results] == [16, 256, 4096, 65536]
    assert all(result[way]["frames_per_second"] > 0 for result in results for way in ("encode", "decode"))


def test_replay(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert replay.main(["--entries", "500", "--keys", "500", "--dir", str(tmp_path), "--json"]) == 0
    found = _found(capsys)
    assert found["results"][0]["entries"] == 500
    assert found["snapshot"]["keys"] == 500


def test_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert copies.main(["--reads", "20000", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["max_staleness"] for result in results] == [None, 60.0]
    assert all(result["reads"] == 20_000 and result["reads_per_second"] > 0 for result in results)


def test_cafe_beside_the_native_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cafe.main(["--rounds", "1", "--calls", "200", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [(result["call"], result["in_flight"], result["way"]) for result in results] == [
        (call, in_flight, way) for call in ("get", "set") for in_flight in cafe.IN_FLIGHT for way in cafe.WAYS
    ]
    assert all(result["rate"] > 0 for result in results)
    assert all(result["ratio"] == 1 for result in results if result["way"] == cafe.WAYS[0])


def test_tls_beside_tcp(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tls.main(["--rounds", "1", "--calls", "200", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["transport"] for result in results] == ["TCP", "TLS"] * 4
    assert all(result["rate"] > 0 for result in results)


def test_startup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert startup.main(["--rounds", "1", "--dir", str(tmp_path), "--json"]) == 0
    found = _found(capsys)
    assert found["result"]["imports_ms"] > 0
    assert [each["statements"] for each in found["imports"]] == list(startup.IMPORTS)
    assert all(0 < each["least_ms"] <= each["median_ms"] for each in found["imports"])
    assert found["imports"][0]["modules"] < found["imports"][-1]["modules"]


@of_proc
def test_an_idle_client(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert idle.main(["--seconds", "0.2", "--settle", "0.1", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["client"] for result in results] == list(idle.CLIENTS)
    assert results[0]["resident_mib"] > results[2]["resident_mib"] > 1


@of_proc
def test_the_wakings_of_a_process_are_counted() -> None:
    wakes = "import sys, time\nprint('ready', flush=True)\nfor line in sys.stdin: print(line, flush=True)"
    with subprocess.Popen([sys.executable, "-c", wakes], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        before = idle.switches(process.pid)
        for _ in range(5):
            process.stdin.write(b"x\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"x\n"
            assert process.stdout.readline() == b"\n"
            while "S (sleeping)" not in Path(f"/proc/{process.pid}/status").read_text(encoding="ascii"):
                pass
        assert idle.switches(process.pid) - before >= 5
        process.stdin.close()


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on PATH (Debian: redis-server)")
def test_redis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert redis_compare.main(["--rounds", "1", "--scale", "0.005", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert {result["workload"] for result in results} >= {"get, 50 in flight", "set, 50 in flight"}


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on PATH (Debian: redis-server)")
def test_synchronous_clients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sync_compare.main(["--rounds", "1", "--scale", "0.01", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["workload"].partition(",")[0] for result in results] == ["get", "set", "get", "set", "get"]
    assert all(figures["calls_per_second"] > 0 for result in results for figures in result["medians"].values())


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not on PATH (Debian: redis-server)")
def test_memory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--keys", "20000", "--only", "names and texts", "--dir", str(tmp_path), "--json"]
    assert memory.main(options) == 0
    (result,) = _found(capsys)["results"]
    assert result["keys"] == 20_000
    assert 250 < result["haptera_counted"] < 450
    assert result["redis_used"] > 50


def test_memory_after(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_after, "WAVES", 2)
    monkeypatch.setattr(memory_after, "WARM", 1)
    assert memory_after.main(["--count", "64", "--only", "strange_names", "--dir", str(tmp_path), "--json"]) == 0
    (result,) = _found(capsys)["results"]
    assert result["situation"] == "strange names"
    for count in ("blocks", "used", "resident"):
        assert result["idle"][count] > 0
        assert result["warm"][count] > 0


def test_durable_writes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a node alone: its rivals take seconds to start."""
    monkeypatch.setattr(storage, "LOADS", ((1, 1), (50, 1), (8, 4)))
    monkeypatch.setattr(storage, "_rivals", lambda servers, path: [])
    assert storage.main(["--rounds", "1", "--seconds", "0.05", "--dir", str(tmp_path), "--json"]) == 0
    found = _found(capsys)
    assert [row["load"] for row in found["writes"]] == [
        "serial",
        "50 in flight, 1 connection",
        "8 in flight, 4 connections",
        "half the rate of 50 in flight",
    ]
    assert all(row["sets_per_second"] > 0 and row["p999_ms"] >= row["p50_ms"] > 0 for row in found["writes"])
    alone, shared = (row["bytes"] for row in found["log_bytes"])
    assert 256 < shared < alone < 600


def test_durable_transactions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a node alone: its rivals take seconds to start."""
    monkeypatch.setattr(transactions, "_rivals", lambda servers, path: [])
    assert transactions.main(["--rounds", "1", "--seconds", "0.05", "--dir", str(tmp_path), "--json"]) == 0
    found = _found(capsys)["transactions"]
    assert [(row["load"], row["client"]) for row in found] == [
        ("serial", "haptera, transact"),
        ("serial", "haptera, transaction"),
        ("50 in flight", "haptera, transact"),
        ("50 in flight", "haptera, transaction"),
    ]
    assert all(row["transactions_per_second"] > 0 and row["p99_ms"] >= row["p50_ms"] > 0 for row in found)


def test_attacks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--keys", "300", "--seconds", "0.1", "--only", "clear", "--dir", str(tmp_path), "--json"]
    assert attacks.main(options) == 0
    results = _found(capsys)["results"]
    assert [result["work"] for result in results] == [
        "nothing else",
        "clear of all keys",
        "embedded: clear of all keys",
    ]
    assert all(result["gets"] > 0 and result["longest_ms"] > 0 for result in results)


def test_scans(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scans, "TOGETHER", (2,))
    assert scans.main(["--keys", "2000", "--seconds", "0.2", "--dir", str(tmp_path), "--json"]) == 0
    alone, beside = _found(capsys)["results"]
    assert "scanned" not in alone
    assert beside["scanned"]["keys"] % 2001 == 0
    assert beside["scanned"]["keys"] >= 4002
    assert alone["turns"]["turns"] > 0
    assert all(beside[call]["gets"] > 0 for call in ("get", "set"))


def test_the_end_of_many_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiry, "BEFORE_S", 2.0)
    assert expiry.main(["--keys", "500", "--dir", str(tmp_path), "--json"]) == 0
    results = _found(capsys)["results"]
    assert [result["watched"] for result in results] == [False, True]
    assert results[1]["told_after_s"] > 0
    assert all(result["during"]["turns"]["longest_ms"] > 0 for result in results)


def test_leases(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a node alone: etcd takes seconds to start."""
    monkeypatch.setattr(processes, "etcd_version", lambda: None)
    few = [leases.Way(way.name, min(way.connections, 4), way.together) for way in leases.WAYS]
    for name, value in (
        *(("INTERVAL_S", 0.2), ("CHANGES", 100), ("ENDS", ((2, 10_000),))),
        *(("WAYS", few), ("ENDING_TTL_S", 3)),
    ):
        monkeypatch.setattr(leases, name, value)
    assert leases.main(["--leases", "100", "--seconds", "0.2", "--dir", str(tmp_path), "--json"]) == 0
    found = _found(capsys)
    assert found["changes"][0]["grants_per_second"] > 0
    assert [(row["way"], row["renewals"]) for row in found["renewals"]] == [
        ("one call", 100),
        ("a call of each connection", 100),
        ("a call for each lease", 100),
    ]
    assert [(row["revoked"], row["keys_each"]) for row in found["ends"]] == [(True, 100), (False, 100)]


def test_watches(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a node alone: etcd takes seconds to start."""
    monkeypatch.setattr(processes, "etcd_version", lambda: None)
    monkeypatch.setattr(watches, "SECONDS", 0.2)
    options = ["--load", "5:50", "--load", "5:50:keys", "--dir", str(tmp_path), "--json"]
    assert watches.main(options) == 0
    rows = _found(capsys)["watches"]
    readers = ["haptera, client"] if shutil.which("go") is None else ["haptera, client", "haptera"]
    assert {(row["client"], row["own_keys"]) for row in rows} == set(product(readers, (False, True)))
    for found in (row["figures"] for row in rows):
        assert found["share"] == found["least_share"] == 1
        assert 0 < found["p50_ms"] <= found["p99_ms"]
