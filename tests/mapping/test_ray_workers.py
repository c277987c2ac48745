"""Tiles computed on a Ray cluster of this machine."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from geotune.mapping.map_scenes import map_scenes


@pytest.mark.slow
def test_tiles_of_a_cluster_are_those_of_this_machine(
    monkeypatch: pytest.MonkeyPatch,
    workers_here: None,
    untrained: Callable[..., Path],
    tiny_scenes: Path,
    tmp_path: Path,
) -> None:
    ray = pytest.importorskip("ray")
    run, scenes = untrained(), str(tiny_scenes / "scenes" / "*.tif")
    map_scenes(run, scenes, tmp_path / "here", tile=64, device="cpu")
    paths = os.pathsep.join(str(Path(part).resolve()) for part in ("src", "tests"))
    variables = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False,
        runtime_env={"env_vars": variables},
    )  # fmt: skip
    try:
        map_scenes(run, scenes, tmp_path / "ray", tile=64, device="cpu", ray="auto", workers=2)
    finally:
        ray.shutdown()
    for path in (tmp_path / "here" / "tiles").rglob("*.tif"):
        other = tmp_path / "ray" / path.relative_to(tmp_path / "here")
        assert path.read_bytes() == other.read_bytes()
