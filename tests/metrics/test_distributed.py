"""Gathering across processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from geotune.metrics.distributed import all_gather

SCRIPT = """
import sys
import torch, torch.distributed as distributed
import pytest

from geotune.metrics.distributed import all_gather
rank = int(sys.argv[1])
distributed.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
assert all_gather([rank, "a"] if rank else []) == [1, "a"]
assert all_gather([rank]) == [0, 1]
distributed.destroy_process_group()
"""


def test_single_process_returns_its_own_items() -> None:
    assert all_gather((1, 2)) == [1, 2]


@pytest.mark.slow
def test_items_of_two_processes_are_in_rank_order(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT]
    source = str(Path(__file__).parents[2] / "src")
    started = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "rendezvous")],
            env={**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in started] == [0, 0]
