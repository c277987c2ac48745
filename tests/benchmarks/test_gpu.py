"""`benchmarks/gpu.py` on the CPU: its parts with tiny models, its file, its messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from geotune.factory.fake_model import FakeModelBuilder


@pytest.fixture
def gpu(benchmark: Callable[[str], ModuleType]) -> Any:
    return benchmark("gpu")


def test_parts_fit_into_ten_minutes(gpu: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.LIMITS.keys() == gpu.PARTS.keys() and sum(gpu.LIMITS.values()) <= 600
    assert gpu.main(["--list"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"plan: at most {gpu.LIMITS['plan']} s"


def test_message_without_cuda(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--results", str(tmp_path / "gpu.json")]) == 0
    assert "no CUDA device" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [0, 11], ids=["full", "cached"])
def test_estimates_agree(gpu: Any, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(gpu, "CHECKS", [gpu.CHECKS[number]])
    (row,) = gpu.plan_rows(gpu.Machine(tiny=True))
    assert row["met"] and abs(row["error"]) < 0.001 and row["measured_bytes"] > 1e6


def test_all_recipes_are_possible(gpu: Any) -> None:
    machine = gpu.Machine(tiny=True)
    assert len(gpu.CHECKS) == 20
    for name, method, changes in gpu.CHECKS:
        recipe = machine.recipe({"name": name}, {"method": method, **changes})
        model = FakeModelBuilder(recipe, recipe.backbone.bands).fake(recipe)
        trained = [name for name, p in model.named_parameters() if p.requires_grad]
        assert any(name.startswith("decoder.") for name in trained), (name, method, changes)


def test_timed_steps(gpu: Any) -> None:
    rows = {
        row["name"]: row
        for row in gpu.step_rows(gpu.Machine(tiny=True), {"name": "timm/vit_large_patch16_224"})
    }
    assert list(rows) == list(gpu.STEPS)
    assert rows["full"]["peak_bytes_of_full"] == 1
    assert rows["est, int8"]["peak_bytes"] < rows["est"]["peak_bytes"]
    assert rows["est, cached"]["peak_bytes"] < rows["est"]["peak_bytes"]
    assert all(row["milliseconds"] > 0 and not row["notes"] for row in rows.values())


def test_prithvi_needs_terratorch(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "find_spec", lambda name: None)
    (row,) = gpu.prithvi_rows(gpu.Machine(tiny=True))
    assert "terratorch" in row["skipped"]


@pytest.mark.slow
def test_resumed_training_is_equal(gpu: Any) -> None:
    whole, resumed, compared = gpu.resume_rows(gpu.Machine(tiny=True))
    assert (whole["status"], resumed["status"]) == ("trained", "resumed")
    assert compared["equal_metrics"] and compared["equal_tensors"]


def test_failed_row_is_kept(gpu: Any) -> None:
    def fails() -> dict[str, Any]:
        raise torch.OutOfMemoryError("out of memory")

    assert gpu.attempted({"name": "full"}, fails) == {
        "name": "full", "error_text": "out of memory",
    }  # fmt: skip


class TestRunPart:
    """`run_part`, with a script in place of the measurements."""

    def run(self, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Any:
        path = tmp_path / "child.py"
        path.write_text(script, encoding="utf-8")
        monkeypatch.setattr(gpu, "__file__", str(path))
        record = gpu.Record(tmp_path / "gpu.json", gpu.Machine(tiny=True))
        gpu.run_part("plan", record, True)
        written = json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))
        assert written == record.values
        return record, written["parts"]["plan"]

    def test_done(self, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        script = 'print("a note")\nprint(\'{"name": "full", "error": 0.1, "met": false}\')'
        record, part = self.run(gpu, tmp_path, monkeypatch, script)
        assert part["status"] == "done" and len(part["rows"]) == 1
        assert record.problems(["plan"]) == ["plan full: estimate off by 10.0%"]

    def test_failed(self, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        record, part = self.run(gpu, tmp_path, monkeypatch, "print('{\"a\": 1}')\n1 / 0")
        assert part["rows"] == [{"a": 1}]
        assert record.problems(["plan"]) == ["plan: failed"]

    def test_time_limit(self, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(gpu.LIMITS, "plan", 2)
        script = "import time\nprint('{\"a\": 1}', flush=True)\ntime.sleep(60)"
        record, part = self.run(gpu, tmp_path, monkeypatch, script)
        assert part["rows"] == [{"a": 1}] and part["seconds"] < 30
        assert record.problems(["plan"]) == ["plan: time limit"]


def test_rows_of_other_parts_are_kept(gpu: Any, tmp_path: Path) -> None:
    machine = gpu.Machine(tiny=True)
    first = gpu.Record(tmp_path / "gpu.json", machine)
    for part in ("plan", "resume"):
        first.start(part)
        first.add(part, {"name": part})
        first.finish(part, "done", 1)
    second = gpu.Record(tmp_path / "gpu.json", machine)
    second.start("plan")
    assert second.values["parts"]["resume"]["rows"] == [{"name": "resume"}]
    assert second.values["parts"]["plan"]["rows"] == []
    machine.facts = lambda: {"name": "another device"}
    assert gpu.Record(tmp_path / "gpu.json", machine).values["parts"] == {}
