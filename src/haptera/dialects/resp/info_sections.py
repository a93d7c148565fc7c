"""The text of INFO: sections of lines ``name:value``, with the names that exporters and tools look for.

A line is there where a node has a number that means the same. Sizes and counts of what all users have need the
permission `metrics`, as in the status of a node (spec/protocol.md, section 5.3); without it they are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from haptera.dialects.resp.redis_version import REDIS_VERSION
from haptera.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from haptera.node.frontend import Facts

#: Lines of one section.
Lines = list[tuple[str, object]]

_SECONDS_PER_DAY: Final = 86_400
_UNITS: Final = ((1 << 40, "T"), (1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K"))


def human(size: int) -> str:
    """Return a size in bytes as a person reads it, in the form of Redis."""
    for unit, name in _UNITS:
        if size >= unit:
            return f"{size / unit:.2f}{name}"
    return f"{size}B"


def _server(facts: Facts, port: int) -> Lines:
    uptime_s = facts.uptime_ms // 1000
    process = facts.process()
    return [
        ("redis_version", REDIS_VERSION),
        ("redis_mode", "standalone"),
        ("haptera_version", __version__),
        ("os", process.system),
        ("arch_bits", 64),
        ("process_id", process.pid),
        ("run_id", run_id(facts)),
        ("tcp_port", port),
        ("server_time_usec", facts.clock_ms() * 1000),
        ("uptime_in_seconds", uptime_s),
        ("uptime_in_days", uptime_s // _SECONDS_PER_DAY),
    ]


def run_id(facts: Facts) -> str:
    """Return the id of the store, 40 characters as the run id of a Redis has: 32 of the node, and 8 zeros."""
    return facts.server_id.hex().ljust(40, "0")


def _clients(facts: Facts, metrics: Mapping[str, float]) -> Lines:
    return [
        ("connected_clients", int(metrics.get("connections", facts.connected))),
        ("maxclients", facts.config.max_connections),
        ("blocked_clients", 0),
    ]


def _memory(facts: Facts, metrics: Mapping[str, float]) -> Lines:
    used, limit, process = int(metrics["entries_size_bytes"]), facts.config.memory_max, facts.process()
    sizes = {
        "used_memory": used,
        "used_memory_rss": process.resident_bytes,
        "total_system_memory": process.system_memory_bytes,
        "maxmemory": limit,
    }
    lines: Lines = []
    for name, size in sizes.items():
        lines += [(name, size), (f"{name}_human", human(size))]
    return [
        *lines,
        ("used_memory_dataset", used),
        ("maxmemory_policy", "noeviction"),
    ]


def _persistence(facts: Facts, metrics: Mapping[str, float]) -> Lines:
    synced = facts.config.durability == "sync"
    return [
        ("loading", 0),
        ("rdb_changes_since_last_save", int(metrics["index"] - metrics["snapshot_index"])),
        ("rdb_bgsave_in_progress", 0),
        ("rdb_last_save_time", last_save_s(facts, metrics)),
        ("rdb_last_bgsave_status", "ok" if not metrics["snapshots_failed_total"] else "err"),
        ("rdb_last_bgsave_time_sec", int(metrics["snapshot_seconds"]) if metrics["snapshots_total"] else -1),
        ("rdb_saves", int(metrics["snapshots_total"])),
        ("aof_enabled", 1),
        ("aof_rewrite_in_progress", 0),
        ("aof_last_write_status", "err" if facts.failed else "ok"),
        ("aof_current_size", int(metrics["log_size_bytes"])),
        ("haptera_durability", "sync" if synced else "os"),
    ]


def last_save_s(facts: Facts, metrics: Mapping[str, float]) -> int:
    """Return the Unix time of the newest snapshot, or of the node's start where there is none."""
    if metrics["snapshots"]:
        return int(facts.clock_ms() / 1000 - metrics["snapshot_age_seconds"])
    return (facts.clock_ms() - facts.uptime_ms) // 1000


def _stats(facts: Facts, metrics: Mapping[str, float]) -> Lines:
    return [
        ("total_connections_received", int(metrics["connections_total"])),
        ("total_commands_processed", int(metrics["requests_received_total"])),
        ("total_net_input_bytes", int(metrics["wire_received_bytes_total"])),
        ("total_net_output_bytes", int(metrics["wire_sent_bytes_total"])),
        ("rejected_connections", int(metrics["connections_refused_total"])),
        ("expired_keys", int(metrics["keys_expired_total"])),
        ("evicted_keys", 0),
    ]


def _replication(facts: Facts) -> Lines:
    return [
        ("role", "master"),
        ("connected_slaves", 0),
        ("master_replid", run_id(facts)),
        ("master_repl_offset", facts.revision),
    ]


def _cpu(facts: Facts) -> Lines:
    process = facts.process()
    return [("used_cpu_sys", f"{process.cpu_system_s:.6f}"), ("used_cpu_user", f"{process.cpu_user_s:.6f}")]


def _keyspace(metrics: Mapping[str, float]) -> Lines:
    keys, expiring = int(metrics["keys"]), int(metrics["keys_expiring"])
    return [("db0", f"keys={keys},expires={expiring},avg_ttl=0")] if keys else []


#: The sections in their order. One that is not open is for users with the permission `metrics`.
_OPEN: Final = ("server", "replication", "modules", "cluster")
SECTIONS: Final = (
    "server",
    "clients",
    "memory",
    "persistence",
    "stats",
    "replication",
    "cpu",
    "modules",
    "commandstats",
    "errorstats",
    "latencystats",
    "cluster",
    "keyspace",
)
#: The sections that INFO has where none is named; `all` and `everything` have the others too.
_USUAL: Final = frozenset(SECTIONS) - {"commandstats", "latencystats"}
_TITLES: Final = {"cpu": "CPU"}


def chosen(names: Sequence[str]) -> Collection[str]:
    """Return the sections that some names stand for. A name that stands for none is passed over, as in Redis."""
    if not names:
        return _USUAL
    found: set[str] = set()
    for name in map(str.lower, names):
        match name:
            case "default":
                found |= _USUAL
            case "all" | "everything":
                found.update(SECTIONS)
            case _:
                found.add(name)
    return found


def info_text(names: Sequence[str], facts: Facts, *, measured: bool, port: int) -> str:
    """Return the text of INFO with the named sections; ``measured`` where the caller has the permission `metrics`.

    ``port`` is that of the caller's listener, 0 for a Unix socket.
    """
    metrics = facts.metrics() if measured else {}
    lines: dict[str, Callable[[], Lines]] = {
        "server": lambda: _server(facts, port),
        "clients": lambda: _clients(facts, metrics),
        "memory": lambda: _memory(facts, metrics),
        "persistence": lambda: _persistence(facts, metrics),
        "stats": lambda: _stats(facts, metrics),
        "replication": lambda: _replication(facts),
        "cpu": lambda: _cpu(facts),
        "cluster": lambda: [("cluster_enabled", 0)],
        "keyspace": lambda: _keyspace(metrics),
    }
    wanted = chosen(names)
    texts = []
    for name in SECTIONS:
        if name in wanted and (measured or name in _OPEN):
            body = lines[name]() if name in lines else []
            title = _TITLES.get(name, name.capitalize())
            texts.append(f"# {title}\r\n" + "".join(f"{field}:{value}\r\n" for field, value in body))
    return "\r\n".join(texts)
