"""Runs on a Ray cluster of this machine."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.errors import raises


def test_missing_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from geotune.bench.ray_executor import RayExecutor

    monkeypatch.setitem(sys.modules, "ray", None)
    with raises("dependency-missing", key="--ray", mentions=["geotune[ray]"]):
        RayExecutor("auto")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # as on the cluster: sums depend on the number of threads
    ray = pytest.importorskip("ray")
    paths = os.pathsep.join(str(Path(part).resolve()) for part in ("src", "tests"))
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}},
    )
    yield ray
    ray.shutdown()


@pytest.mark.slow
def test_ray_matches_local_runs_and_retries_dead_workers(
    ray: Any, suite: Callable[..., Path], tmp_path: Path
) -> None:
    import threading

    from geotune.bench.run_suite import bench

    path = suite({"train.epochs": 2}, grid={"method.kind": ["est", "frozen"]}, baselines=None)
    killed: list[int] = []

    def kill_a_worker() -> None:
        """Kill the worker of the first run that starts."""
        recipe = tmp_path / "bench" / "runs" / "tiny" / "est-0" / ".lock"
        while not (recipe.is_file() and recipe.read_text()):
            time.sleep(0.05)
        child = json.loads(recipe.read_text())["process"]
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        killed.append(int(fields[1]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_a_worker)
    killer.start()
    result = bench(path, ray="auto")
    killer.join()
    assert killed and [row["error"] for row in result.rows] == [None, None]
    alone = tmp_path / "alone.yaml"
    alone.write_text(path.read_text().replace(str(tmp_path / "bench"), str(tmp_path / "alone")))
    expected = bench(alone)
    assert [row["metrics"] for row in result.rows] == [row["metrics"] for row in expected.rows]
