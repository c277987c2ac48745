"""Training with a teacher: what it costs, what it gives, what it refuses."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file

import geotune
from geotune.api.distilling import distill, student_recipe
from geotune.api.fitting import FitResult, finish, fit
from geotune.api.planning import plan
from geotune.api.run import load_adapter
from geotune.api.testing import test as test_run
from geotune.backbones.base import Backbone
from geotune.config import load_recipe, parse_recipe
from geotune.factory.build_data import build_data
from geotune.feature_cache.teacher_cache import Teacher, taught_maps
from geotune.training.distillation import resample
from geotune.training.training_module import TrainingModule
from geotune.types import Batch
from helpers.errors import raises

TEACHER, STUDENT = "timm/test_vit", "timm/test_convnext"
WINDOWS = 8 * 8
"""Training windows of the tiny recipe, in eight orientations."""


@pytest.fixture(scope="module")
def teacher(
    tiny_values: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The run of a ViT that is trained beside its frozen blocks."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "geotune.api.train_workflow.write_report", lambda path, report: path.write_bytes(b"x")
        )
        fit(parse_recipe(tiny_values({"train.epochs": 6})), run=run)
    return run


@pytest.fixture
def changes(teacher: Path, tmp_path: Path) -> dict[str, Any]:
    """Changes of the tiny recipe for a student of the teacher."""
    return {
        "backbone.name": STUDENT,
        "method": {"kind": "full", "stem_width": 0},
        "train.epochs": 2,
        "train.cache_folder": str(tmp_path / "cache"),
        "distill.run": str(teacher),
    }


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, int]]:
    """The number of windows that each backbone has seen."""
    counts: dict[str, int] = {}
    forward = Backbone.forward

    def counting(self: Backbone, images: Any, **options: Any) -> Any:
        if len(images) > 1:  # not the probe of a method
            counts[self.name] = counts.get(self.name, 0) + len(images)
        return forward(self, images, **options)

    monkeypatch.setattr(Backbone, "forward", counting)
    yield counts


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_teacher_runs_once_over_the_windows_and_never_in_training(
    train: Callable[..., FitResult],
    changes: dict[str, Any],
    teacher: Path,
    tmp_path: Path,
    seen: dict[str, int],
) -> None:
    during: list[int] = []

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            during.append(seen[TEACHER])

    result = train(tmp_path / "one", changes, callbacks=lambda: [Watch()])
    assert during == [WINDOWS] * 4
    assert seen[TEACHER] == WINDOWS
    summary = result.summary["distill"]
    assert summary["run"] == str(teacher)
    assert (summary["cache"]["samples"], summary["cache"]["computed"]) == (WINDOWS, WINDOWS)
    # another student, task weights and temperature: all is cached
    others = {"method": {"kind": "frozen", "stem_width": 0}, "distill.temperature": 5.0}
    again = train(tmp_path / "two", {**changes, **others, "train.seed": 4, "train.batch_size": 2})
    assert again.summary["distill"]["cache"]["computed"] == 0
    assert seen[TEACHER] == WINDOWS
    # only the outputs: another set, without the maps
    outputs = train(tmp_path / "three", {**changes, "distill.features_weight": 0})
    assert outputs.summary["distill"]["cache"]["computed"] == WINDOWS


def test_teacher_is_not_kept_and_no_part_of_the_result(
    train: Callable[..., FitResult], changes: dict[str, Any], tmp_path: Path
) -> None:
    kept: list[bool] = []
    teachers: list[Teacher] = []
    original = Teacher.__init__

    def recorded(self: Teacher, *arguments: Any) -> None:
        original(self, *arguments)
        teachers.append(self)

    class Watch(Callback):
        def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
            assert isinstance(module, TrainingModule) and module.distillation is not None
            [one] = teachers
            kept.append(one._model is not None)
            names = {type(layer).__name__ for layer in module.modules()}
            assert "VisionTransformer" not in names and "ConvNeXt" in names
            assert len(module.distillation.projections) == 4  # of strides 4 to 32

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Teacher, "__init__", recorded)
        train(tmp_path / "run", changes, callbacks=lambda: [Watch()])
    assert kept == [False]
    plain = {k: v for k, v in changes.items() if not k.startswith("distill")}
    train(tmp_path / "plain", plain)
    one, other = (load_file(tmp_path / n / "adapter.safetensors") for n in ("run", "plain"))
    assert {n: t.shape for n, t in one.items()} == {n: t.shape for n, t in other.items()}


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"train.accumulate_steps": 2, "train.precision": "bf16-mixed"}, id="disk"),
        pytest.param({"distill.cache": "memory", "train.workers": 1}, id="memory"),
    ],
)
def test_resumed_training_is_bit_identical(
    train: Callable[..., FitResult],
    cut_off: Callable[..., None],
    changes: dict[str, Any],
    tmp_path: Path,
    more: dict[str, Any],
) -> None:
    changes = {**changes, **more}
    train(tmp_path / "whole", changes)
    cut_off(tmp_path / "cut", changes, epoch=1)
    assert train(tmp_path / "cut", changes).status == "resumed"
    assert history(tmp_path / "whole") == history(tmp_path / "cut")
    files = [tmp_path / name / "adapter.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_finish_and_continue(
    train: Callable[..., FitResult],
    cut_off: Callable[..., None],
    changes: dict[str, Any],
    tmp_path: Path,
    seen: dict[str, int],
) -> None:
    cut_off(tmp_path / "run", changes, epoch=1)
    before = seen[TEACHER]
    assert finish(tmp_path / "run").status == "finished"
    assert seen[TEACHER] == before
    result = fit(tmp_path / "run", ["train.epochs=3"])
    assert result.status == "continued"
    assert len(history(tmp_path / "run")) == 3


def test_other_teacher_cannot_resume(
    train: Callable[..., FitResult],
    cut_off: Callable[..., None],
    changes: dict[str, Any],
    teacher: Path,
    tiny_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    changes = {**changes, "distill.run": str(copy)}
    cut_off(tmp_path / "run", changes, epoch=1)
    fit(parse_recipe(tiny_values({"train.epochs": 1})), run=copy, overwrite=True)
    with raises("teacher-mismatch", key="distill.run", mentions=["hash", "--overwrite"]):
        train(tmp_path / "run", changes)


def test_with_cached_features_of_the_student(
    train: Callable[..., FitResult], changes: dict[str, Any], tmp_path: Path
) -> None:
    """The same losses: both caches hold the same windows in the same orientations."""
    changes = {**changes, "method": {"kind": "frozen", "stem_width": 0}}
    train(tmp_path / "run", changes)
    cached = {**changes, "train.cache": "memory", "train.cache_precision": "fp32"}
    exact = {**changes, "train.cache_precision": "fp32"}
    train(tmp_path / "exact", exact)
    result = train(tmp_path / "cached", cached)
    assert result.summary["cache"]["samples"] == WINDOWS + 4
    names = ("train/loss", "val/loss")
    exact_rows, cached_rows = (
        [[float(row[name]) for name in names] for row in history(tmp_path / run)]
        for run in ("exact", "cached")
    )
    for row, other in zip(exact_rows, cached_rows, strict=True):
        assert other == pytest.approx(row, abs=1e-5)


def test_result_predicts_in_another_process_without_the_teacher(
    changes: dict[str, Any], teacher: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    """The command, from a copy of the teacher that is gone afterwards."""
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    overrides = [
        "backbone.pretrained=false", "train.epochs=1",
        f"train.cache_folder={tmp_path / 'cache'}", "method.stem_width=0",
    ]  # fmt: skip
    result = distill(copy, STUDENT, overrides)
    assert result.run == tmp_path / "teacher-test_convnext"
    shutil.rmtree(copy)
    shutil.rmtree(tmp_path / "cache")
    command = [
        sys.executable, "-m", "geotune", "predict", str(result.run),
        str(tiny_scenes / "scenes" / "d.tif"), "--out", str(tmp_path / "maps"),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env={**os.environ})
    assert list((tmp_path / "maps").glob("*.tif"))
    assert 0 <= test_run(result.run)["metrics"]["miou"] <= 1


def test_student_agrees_more_with_its_teacher(
    train: Callable[..., FitResult], changes: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    """Of two students that differ in `distill` only, on validation windows."""
    longer = {**changes, "train.epochs": 6, "data.augment": False, "data.brightness": 0}
    plain = {k: v for k, v in longer.items() if not k.startswith("distill")}
    train(tmp_path / "taught", {**longer, "distill.outputs_weight": 5.0})
    train(tmp_path / "plain", plain)
    windows = build_data(parse_recipe(yaml.safe_load((teacher / "recipe.yaml").read_text()))).val
    batch = Batch.from_samples([windows[i] for i in range(len(windows))])
    logits = {}
    with torch.no_grad():
        for name, run in (("teacher", teacher), *((n, tmp_path / n) for n in ("taught", "plain"))):
            logits[name] = load_adapter(run).model.eval()(**batch.inputs).log_softmax(1)
    target = logits["teacher"]
    distance = {
        name: float((target.exp() * (target - logits[name])).sum(1).mean())
        for name in ("taught", "plain")
    }
    assert distance["taught"] < 0.7 * distance["plain"], distance


# ---------------------------------------------------------------- maps
def test_maps_are_the_deepest_of_each_stride_without_the_stem() -> None:
    """EST's side network gives a pyramid; of a ViT's own maps of one stride the last is enough."""

    def strides(**options: Any) -> dict[int, float]:
        backbone = geotune.backbone(TEACHER, bands=3, pretrained=False)
        encoder = geotune.attach(backbone, geotune.Est(min_width=8, **options))
        assert len(encoder.taps) > len(taught_maps(encoder))
        return {i: tap.stride for i, tap in taught_maps(encoder).items()}

    assert strides(stem_width=4, output="side") == {3: 4.0, 4: 8.0, 5: 16.0, 6: 32.0}
    assert list(strides(stem_width=0, output="sum").values()) == [16.0]


def test_resampled_maps_keep_their_place() -> None:
    """A map of the pixels' own coordinates, on grids that cover other sizes."""
    rows = torch.arange(32.0).view(1, 1, 32, 1).expand(1, 1, 32, 32) + 0.5
    coarse = resample(rows, (32, 32), (3, 3), (42, 42))  # of 14 pixels each
    assert coarse[0, 0, :, 0].tolist() == pytest.approx([7.0, 21.0, 31.5])  # the edge beyond 32
    assert resample(rows, (32, 32), (32, 32), (32, 32)) is rows
    fine = resample(coarse[..., :2, :2], (28, 28), (4, 4), (28, 28))
    assert fine[0, 0, :, 0].tolist() == pytest.approx([7.0, 10.5, 17.5, 21.0])


# ---------------------------------------------------------------- recipes
def test_bands_of_modalities_are_joined(teacher: Path, tmp_path: Path) -> None:
    """A student of one modality reads the bands that a teacher of two has, in their order."""
    values = yaml.safe_load((teacher / "recipe.yaml").read_text())
    values["backbone"] |= {"bands": {"optical": ["red", "green"], "infrared": ["nir"]}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    assert student_recipe(tmp_path, STUDENT).backbone.bands == ("red", "green", "nir")


def test_recipe_of_a_student(teacher: Path) -> None:
    recipe = student_recipe(
        teacher, STUDENT, ["train.epochs=7", "distill.outputs_weight=2"], student_weights="w.pt"
    )
    before = parse_recipe(yaml.safe_load((teacher / "recipe.yaml").read_text()))
    assert (recipe.data, recipe.task, recipe.decoder) == (before.data, before.task, before.decoder)
    assert recipe.backbone.name == STUDENT and recipe.backbone.bands == before.backbone.bands
    assert recipe.backbone.weights == Path("w.pt") and recipe.backbone.pretrained
    assert recipe.method.kind == "full"
    assert (recipe.train.epochs, recipe.train.lr, recipe.train.run) == (7, before.train.lr, None)
    assert recipe.distill is not None
    assert (recipe.distill.run, recipe.distill.outputs_weight) == (teacher, 2.0)
    added, _ = load_recipe(teacher / "recipe.yaml", ["distill.run=other"])  # `distill: null` there
    assert added.distill is not None and added.distill.run == Path("other")


def test_plan_is_that_of_the_student(
    tiny_values: Callable[..., dict[str, Any]], changes: dict[str, Any]
) -> None:
    with_teacher = plan(parse_recipe(tiny_values(changes)))
    changes.pop("distill.run")
    without = plan(parse_recipe(tiny_values(changes)))
    assert with_teacher.peak.total == without.peak.total
    assert any(note.startswith("distill: ") for note in with_teacher.notes)


# ---------------------------------------------------------------- bad input
@pytest.mark.parametrize(
    ("more", "key", "mentions"),
    [
        ({"distill.outputs_weight": 0, "distill.features_weight": 0}, "distill.outputs_weight", []),
        ({"distill.temperature": 0}, "distill.temperature", ["0"]),
        ({"data.augment": {"rotate": 30}}, "data.augment.rotate", ["distill"]),
        ({"train.strategy": "fsdp"}, "train.strategy", ["distill"]),
        (
            {"task.kind": "detect", "decoder": {"kind": "fcos"}, "task.boxes": "horizontal"},
            "distill",
            ["detect"],
        ),
    ],
)
def test_invalid_recipes(
    tiny_values: Callable[..., dict[str, Any]],
    changes: dict[str, Any],
    more: dict[str, Any],
    key: str,
    mentions: list[str],
) -> None:
    with raises("recipe-invalid", key=key, mentions=mentions):
        parse_recipe(tiny_values({**changes, **more}))


@pytest.mark.parametrize(
    ("more", "code", "key", "mentions"),
    [
        ({"task.classes": ["water", "land"]}, "teacher-mismatch", "task.classes", ["land, water"]),
        (
            {"data.split": {"kind": "list", "train": ["a", "d"], "val": ["c"], "test": ["b"]}},
            "teacher-mismatch",
            "data.split",
            ["without b", "with d"],
        ),
        (
            {"backbone.bands": ["red", "nir", "green"]},
            "teacher-mismatch",
            "backbone.bands",
            ["red, nir, green", "red, green, nir"],
        ),
        ({"backbone.name": "timm/test_vit3"}, "student-too-large", "backbone.name", [TEACHER]),
        ({"backbone.name": "timm/resnet1"}, "backbone-unknown", "backbone.name", ["resnet1"]),
        ({"distill.run": "nowhere"}, "file-missing", "distill.run", ["nowhere"]),
    ],
)
def test_refused_before_anything_is_written(
    train: Callable[..., FitResult],
    changes: dict[str, Any],
    tmp_path: Path,
    more: dict[str, Any],
    code: str,
    key: str,
    mentions: list[str],
) -> None:
    with raises(code, key=key, mentions=mentions):
        train(tmp_path / "run", {**changes, **more})
    assert not (tmp_path / "run").exists()


def test_teacher_that_is_not_finished_or_the_student_itself(
    train: Callable[..., FitResult], changes: dict[str, Any], teacher: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(teacher, tmp_path / "teacher")
    changes = {**changes, "distill.run": str(copy)}
    (copy / "run.json").unlink()
    with raises("run-incomplete", key="distill.run", mentions=["geotune finish"]):
        train(tmp_path / "run", changes)
    with raises("settings-incompatible", key="distill.run"):
        train(copy, changes, overwrite=True)
    assert (copy / "adapter.json").is_file()
    with raises("file-missing", key="distill.run"):
        distill(tmp_path, STUDENT)


def test_teacher_of_other_images(
    train: Callable[..., FitResult],
    changes: dict[str, Any],
    teacher: Path,
    write_tiny_scenes: Callable[[Path], Path],
    tiny_values: Callable[..., dict[str, Any]],
    tmp_path: Path,
) -> None:
    """Scenes of the same names that became brighter, and a file that is gone."""
    import rasterio

    data = write_tiny_scenes(tmp_path / "data")
    for path in (data / "scenes").glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.write(file.read() + 100)
    values = tiny_values(changes, data=data)
    with raises("teacher-mismatch", key="data", mentions=["red"]):
        fit(parse_recipe(values), run=tmp_path / "run")
    (data / "scenes" / "a.tif").unlink()
    with raises("split-name-unknown"):
        fit(parse_recipe(values), run=tmp_path / "run")
