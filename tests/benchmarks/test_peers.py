"""`benchmarks/peers.py`: which contenders run, what they measure, and its files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from geotune.config import parse_recipe


@pytest.fixture
def peers(benchmark: Callable[[str], ModuleType]) -> Any:
    return benchmark("peers")


def row_of(peers: Any, name: str, value: float) -> dict[str, Any]:
    measured = dict.fromkeys([*peers.MEASURES, "step_seconds"], value)
    return {"name": name, **measured, "mapping_mpx_per_s": None}


@pytest.fixture
def settings(peers: Any) -> Any:
    return peers.Settings(size=64, map_size=64, steps=4)


def test_missing_peers_are_skipped(
    peers: Any,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None if name == "torchgeo" else name)
    monkeypatch.setattr(peers, "version", lambda name: "1.0")
    values = iter((2.0, 1.0))

    def measure(name: str, settings: Any, folder: Path) -> dict[str, Any]:
        assert (folder / "scenes" / "scene_009.tif").is_file()  # 4 steps and validation
        assert (folder / "map" / "scene_000.tif").is_file()
        return row_of(peers, name, next(values))

    names = ["terratorch full", "torchgeo full", "geotune est"]
    peers.compare(names, settings, tmp_path / "peers.json", measure)
    assert "torchgeo full: skipped, not installed: torchgeo" in capsys.readouterr().out
    result = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    assert result["skipped"] == {"torchgeo full": "not installed: torchgeo"}
    assert [row["name"] for row in result["rows"]] == ["terratorch full", "geotune est"]
    ratios = result["rows"][1]["ratios"]
    assert ratios["step_seconds"] == 0.5 and ratios["mapping_mpx_per_s"] is None
    assert "geotune est" in (tmp_path / "peers.svg").read_text(encoding="utf-8")


def test_the_fastest_of_several_turns_counts(
    peers: Any, settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: name)
    monkeypatch.setattr(peers, "version", lambda name: "1.0")
    measured: list[str] = []

    def measure(name: str, settings: Any, folder: Path) -> dict[str, Any]:
        measured.append(name)
        row = row_of(peers, name, float(len(measured)))
        return {**row, "mapping_mpx_per_s": float(len(measured))}

    names = ["terratorch full", "geotune est"]
    peers.compare(names, settings, tmp_path / "peers.json", measure, turns=2)
    assert measured == names * 2
    result = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))
    first, second = result["rows"]
    assert result["turns"] == 2
    assert first["step_seconds"] == 1 and first["mapping_mpx_per_s"] == 3
    assert second["first_step_seconds"] == 2 and second["process_bytes"] == 2


def test_nothing_installed(
    peers: Any,
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    peers.compare([*peers.METHODS, *peers.PEERS], settings, tmp_path / "peers.json")
    assert "nothing measured" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_recipes_are_valid(peers: Any, settings: Any, tmp_path: Path) -> None:
    for name in peers.METHODS:
        recipe = parse_recipe(peers.geotune_recipe(name, settings, tmp_path, tmp_path))
        assert recipe.data.window == 64 and recipe.train.precision == "32-true"


def test_probe_times_steps_and_tracks_the_second(peers: Any) -> None:
    probe = peers.StepProbe()
    model, batch = nn.Linear(256, 256), torch.ones(8, 256)
    optimizer = torch.optim.AdamW(model.parameters())
    for _ in range(5):
        probe.start_step(model, {"image": batch, "name": "scene"})
        optimizer.zero_grad()
        model(batch).sum().backward()
        optimizer.step()
    row = probe.row(started=0.0)
    weights = sum(p.nbytes for p in model.parameters())
    assert 4 * weights <= row["tensor_bytes"] < 8 * weights  # gradients, moments, the update
    assert row["timed_steps"] == 2 and row["first_step_seconds"] > 0
    assert row["process_bytes"] > weights


@pytest.mark.slow
@pytest.mark.parametrize("name", ["geotune est, cache", "torchgeo full", "peft lora"])
def test_contenders(peers: Any, settings: Any, tmp_path: Path, name: str) -> None:
    missing = peers.missing_packages(name)
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")

    rows = []

    def measure(name: str, settings: Any, folder: Path) -> dict[str, Any]:
        rows.append(peers.run_child(name, settings, folder))
        return rows[-1]  # type: ignore[no-any-return]

    peers.compare([name], settings, tmp_path / "peers.json", measure)
    (row,) = rows
    assert row["timed_steps"] == 1 and row["trained_parameters"] <= row["parameters"]
    measured = ["tensor_bytes", "process_bytes", "result_bytes", "checkpoint_bytes"]
    assert all(row[key] > 0 for key in measured)
    assert row["result_bytes"] < row["checkpoint_bytes"]
