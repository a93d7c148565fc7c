"""The memory that a second process needs, and what there is (haptera.node.snapshots.room)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from haptera.node.snapshots.room import PROCESS_BYTES, available_bytes, needed_bytes

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1 << 20


def system(root: Path, files: dict[str, str]) -> str:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(root)


MEMINFO = "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    1048576 kB\nHugePages_Total:  0\n"


def test_the_machine_says_what_is_available(tmp_path: Path) -> None:
    assert available_bytes(system(tmp_path, {"proc/meminfo": MEMINFO})) == 1024 * MIB


def test_a_system_that_says_nothing_is_not_guessed_at(tmp_path: Path) -> None:
    assert available_bytes(str(tmp_path)) is None


def test_the_limit_of_a_control_group_counts_with_its_cached_files(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/system.slice/haptera.service"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/system.slice/haptera.service\n",
        f"{group}/memory.max": f"{500 * MIB}\n",
        f"{group}/memory.current": f"{300 * MIB}\n",
        f"{group}/memory.stat": f"anon 5\ninactive_file {100 * MIB}\nactive_file 7\n",
    }
    assert available_bytes(system(tmp_path, files)) == 300 * MIB


def test_the_group_above_may_have_the_lower_limit(tmp_path: Path) -> None:
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "5\n",
        "sys/fs/cgroup/a/memory.max": f"{50 * MIB}\n",
        "sys/fs/cgroup/a/memory.current": f"{10 * MIB}\n",
    }
    assert available_bytes(system(tmp_path, files)) == 40 * MIB


def test_a_control_group_of_the_first_version(tmp_path: Path) -> None:
    group = "sys/fs/cgroup/memory/docker/x"
    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "3:cpu,cpuacct:/docker/x\n9:memory:/docker/x\n",
        f"{group}/memory.limit_in_bytes": f"{100 * MIB}\n",
        f"{group}/memory.usage_in_bytes": f"{120 * MIB}\n",
        f"{group}/memory.stat": "total_inactive_file 0\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2**63 - 4096}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": "1\n",
    }
    assert available_bytes(system(tmp_path, files)) == 0, "over its limit there is nothing, and not less"


def test_the_need_grows_with_the_state() -> None:
    assert needed_bytes(0) == PROCESS_BYTES
    assert needed_bytes(1000 * MIB) == PROCESS_BYTES + 1250 * MIB
