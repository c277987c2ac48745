"""Free memory of a machine, and of the control groups of a container."""

from __future__ import annotations

from pathlib import Path

import pytest

from geotune.utils.available_memory import available_memory

GIB = 2**30
UNLIMITED_V1 = 9223372036854771712


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """16 GiB of a machine are available."""
    text = f"MemTotal: {32 * GIB // 1024} kB\nMemAvailable: {16 * GIB // 1024} kB\n"
    write(tmp_path, {"proc/meminfo": text})
    return tmp_path


def group(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": str(used),
        f"{folder}/memory.stat": f"anon {used - cached}\ninactive_file {cached}\n",
    }


def test_without_groups_the_machine_counts(machine: Path) -> None:
    assert available_memory(machine) == 16 * GIB
    write(machine, {"proc/self/cgroup": "0::/\n"})
    assert available_memory(machine) == 16 * GIB


def test_limit_of_the_group_or_of_one_around_it(machine: Path) -> None:
    """The job may use 8 GiB, all jobs of the user 4 GiB; cached files can be dropped."""
    write(machine, {"proc/self/cgroup": "0::/user/job\n"})
    write(machine, group("sys/fs/cgroup/user/job", str(8 * GIB), 3 * GIB, cached=GIB))
    assert available_memory(machine) == 6 * GIB
    write(machine, group("sys/fs/cgroup/user", str(4 * GIB), 3 * GIB))
    assert available_memory(machine) == GIB
    write(machine, group("sys/fs/cgroup/user", "max\n", 3 * GIB))
    assert available_memory(machine) == 6 * GIB


def test_container_that_sees_only_its_own_group(machine: Path) -> None:
    """The path in /proc is that outside of the container; nothing exists there inside."""
    write(machine, {"proc/self/cgroup": "0::/kubepods/pod1/container\n"})
    write(machine, group("sys/fs/cgroup", str(2 * GIB), GIB // 2))
    assert available_memory(machine) == 3 * GIB // 2


def test_groups_of_version_1(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n"})
    memory = "sys/fs/cgroup/memory"
    write(
        machine,
        {
            f"{memory}/job/memory.limit_in_bytes": str(GIB),
            f"{memory}/job/memory.usage_in_bytes": str(GIB // 2),
            f"{memory}/job/memory.stat": f"total_inactive_file {GIB // 4}\n",
            f"{memory}/memory.limit_in_bytes": str(UNLIMITED_V1),
            f"{memory}/memory.usage_in_bytes": str(GIB),
            f"{memory}/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert available_memory(machine) == 3 * GIB // 4


def test_more_used_than_allowed_leaves_nothing(machine: Path) -> None:
    write(machine, {"proc/self/cgroup": "0::/job\n"})
    write(machine, group("sys/fs/cgroup/job", str(GIB), 2 * GIB))
    assert available_memory(machine) == 0


def test_this_machine_has_memory() -> None:
    free = available_memory()
    assert free is None or free > 0
