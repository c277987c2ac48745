"""How much memory a process can still allocate, on a machine or in a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")
"""The root of the file system; tests replace it."""


def available_memory(root: Path = ROOT) -> int | None:
    """Bytes that this process can still allocate; None if the system does not report it.

    The smallest of what the machine has and what the control groups of the process leave (Linux's
    limits of containers and batch systems, version 1 and 2). Cached files count as available.
    """
    free = [each for each in (_of_machine(root), *_left_in_groups(root)) if each is not None]
    return min(free, default=None)


def _of_machine(root: Path) -> int | None:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii").splitlines()
        fields = dict(line.split(":") for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _left_in_groups(root: Path) -> Iterator[int | None]:
    """What the group of the process and each group around it leave."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            names = ("memory.max", "memory.current", "inactive_file")
            mount = root / "sys/fs/cgroup"
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            mount = root / "sys/fs/cgroup/memory"
        else:
            continue
        group = mount / path.strip("/")
        # Inside a container the mount often shows only the container's own group, as its root.
        for folder in dict.fromkeys((group, *group.parents, mount)):
            if folder == mount or mount in folder.parents:
                yield _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, cached: str) -> int | None:
    """The limit of a group minus what it uses without cached files; None if it has no limit."""
    try:
        most = int((folder / limit).read_text())  # "max": no limit
        used = int((folder / usage).read_text())
        statistics = dict(
            line.split() for line in (folder / "memory.stat").read_text().splitlines()
        )
        return max(0, most - used + int(statistics.get(cached, 0)))
    except (OSError, ValueError):
        return None
