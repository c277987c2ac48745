"""Training from cached features: equal losses, also after interruptions, changes and damage."""

from __future__ import annotations

import csv
import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import rasterio
import rasterio.shutil
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from safetensors.torch import load_file

from geotune.api.caching import CacheResult, cache
from geotune.api.fitting import FitResult
from geotune.backbones.base import Backbone
from geotune.config import parse_recipe
from geotune.data.raster.open_raster import open_raster
from geotune.data.window_datasets import (
    FixedWindowDataset,
    GridWindowDataset,
    RandomWindowDataset,
)
from geotune.feature_cache import build_cache as build_cache_module
from geotune.feature_cache.cache_key import extractor_hash, sample_keys
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.model import Model
from geotune.training.run_dir import RunDir
from geotune.training.training_module import TrainingModule
from geotune.types import Batch
from geotune.utils.feature_encoding import DecodedFeatures
from helpers.errors import raises

Run = Callable[..., FitResult]


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows]


def losses(run: Path) -> list[float]:
    return [row[name] for row in history(run) for name in ("train/loss", "val/loss")]


@pytest.fixture
def caching(tmp_path: Path) -> dict[str, Any]:
    """Recipe changes that cache features in the test's folder."""
    return {"train.cache": "disk", "train.cache_folder": str(tmp_path / "cache")}


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, train: Run) -> Run:
    """Trains like `train`, on the windows of a cache."""

    def fixed(*arguments: Any, **options: Any) -> Any:
        windows = RandomWindowDataset(*arguments, **options)
        result: Any = FixedWindowDataset(windows)
        result.augment = windows.augment
        return result

    def run(*arguments: Any, **options: Any) -> FitResult:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("geotune.data.datamodule.RandomWindowDataset", fixed)
            return train(*arguments, **options)

    return run


METHODS = {
    "est": {},
    "est-sum": {"method.output": "sum", "method.stem_width": 4},
    "est-inside": {"method.use_block_internals": True},
    "est-pca_fixed": {"method.projection_init": "pca_fixed"},
    "est-pca_fixed-sum": {"method.projection_init": "pca_fixed", "method.output": "sum"},
    "frozen": {"method": {"kind": "frozen", "stem_width": 0}},
    "lst": {"method": {"kind": "lst", "stem_width": 0}},
    "dtl": {"method": {"kind": "dtl", "stem_width": 0}},
    "e3va": {"method": {"kind": "e3va", "stem_width": 0}},
    "sidetune": {"method": {"kind": "sidetune", "stem_width": 0, "width": 4}},
}


@pytest.mark.parametrize("method", METHODS)
def test_losses_equal_those_without_a_cache(
    train: Run, stream: Run, caching: dict[str, Any], tmp_path: Path, method: str
) -> None:
    """Within 1e-6 with float32 and 1e-3 with bfloat16, over two epochs in all orientations."""
    changes = {**METHODS[method], "train.epochs": 2, "train.activation_checkpointing": "none"}
    stream(tmp_path / "stream", {**changes, "data.brightness": 0})
    for precision, tolerance in (("fp32", 1e-6), ("bf16", 1e-3)):
        train(tmp_path / precision, {**changes, **caching, "train.cache_precision": precision})
        expected = pytest.approx(losses(tmp_path / "stream"), abs=tolerance)
        assert losses(tmp_path / precision) == expected, precision


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_first_epoch_equals_training_without_a_cache(
    train: Run, caching: dict[str, Any], tmp_path: Path, cache: str
) -> None:
    """Without augmentation, the windows of the first epoch are the same."""
    changes = {"data.augment": False, "data.brightness": 0, "train.epochs": 1}
    train(tmp_path / "stream", changes)
    full = {**caching, "train.cache": cache, "train.cache_precision": "fp32"}
    result = train(tmp_path / "cached", {**changes, **full})
    assert losses(tmp_path / "cached") == pytest.approx(losses(tmp_path / "stream"), abs=1e-6)
    one, other = [load_file(tmp_path / n / "adapter.safetensors") for n in ("stream", "cached")]
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)
    assert (tmp_path / "cache").exists() == (cache == "disk")
    assert result.summary["cache"]["samples"] == 8 + 4
    assert result.summary["cache"]["computed"] == 12


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_backbone_is_out_of_memory_during_the_epochs(
    train: Run, caching: dict[str, Any], tmp_path: Path
) -> None:
    folder = RunDir(tmp_path / "run")

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
            assert isinstance(module, TrainingModule)
            maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            [line] = [line for line in maps if line.endswith(str(folder.offloaded_backbone))]
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            backbone = module.model.encoder.backbone
            assert all(start < p.data_ptr() < end for p in backbone.parameters())

    train(folder.path, {**caching, "train.epochs": 1}, callbacks=lambda: [Watch()])
    assert not folder.offloaded_backbone.exists()


def images_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list whose last item is the number of images that backbones saw since the last pop."""
    counts: list[int] = []
    forward = Backbone.forward

    def counting(self: Backbone, images: Any, **options: Any) -> Any:
        if images.shape[-1] == 32:  # not the probe of a method
            counts[:] = [sum(counts) + len(images)]
        return forward(self, images, **options)

    monkeypatch.setattr(Backbone, "forward", counting)
    return counts


def test_backbone_runs_once_per_window_and_orientation(
    train: Run, caching: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight orientations per training window, one per validation window; later only for the metrics
    of the best epoch, whatever else in the recipe changes."""
    seen = images_seen(monkeypatch)
    first = train(tmp_path / "first", caching)
    assert first.summary["cache"]["computed"] == 8 * 8 + 4
    total = seen.pop()  # includes the evaluation of the best epoch and its examples
    changed = {
        "train.seed": 3, "train.lr": 1e-2, "train.epochs": 2, "decoder": {"kind": "fcn"},
        "method": {"kind": "lst", "stem_width": 4}, "train.batch_size": 2,
    }  # fmt: skip
    for i, key in enumerate(changed):
        result = train(tmp_path / str(i), {**caching, key: changed[key]})
        assert result.summary["cache"]["computed"] == 0, key
        assert seen.pop() == total - (8 * 8 + 4), key


def test_features_of_orientations_are_computed_from_rotated_images(
    train: Run, caching: dict[str, Any], tmp_path: Path
) -> None:
    """ViTs are not rotation equivariant, so rotated images have other features."""
    seen: list[CachedWindowDataset] = []
    with pytest.MonkeyPatch.context() as patch:
        build = build_cache_module.build_cache

        def checked(model: Any, *arguments: Any, **options: Any) -> Any:
            built = build(model, *arguments, **options)
            model.eval()
            for window in range(2):
                for orientation in range(8):
                    sample = built.train.windows.sample(window, orientation)
                    encoded = built.train.store.read(built.train.keys[window * 8 + orientation])
                    cached = DecodedFeatures({name: x[None] for name, x in encoded.items()})
                    expected = model.features(**Batch.from_samples([sample]).inputs)
                    for name, maps in expected.items():
                        torch.testing.assert_close(cached[name], maps, rtol=1e-4, atol=1e-4)
            seen.append(built.train)
            return built

        patch.setattr("geotune.training.trainer.build_cache", checked)
        train(tmp_path / "run", {**caching, "train.cache_precision": "fp32", "train.epochs": 1})
    first, rotated = (seen[0].store.read(seen[0].keys[i]) for i in (0, 1))
    assert not torch.allclose(first["0.feature"].rot90(1, (0, 1)), rotated["0.feature"], atol=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="disk"),
        pytest.param({"train.cache": "memory"}, id="memory"),
        pytest.param(
            {"method.projection_init": "pca_fixed", "train.cache_precision": "int8"}, id="pca-int8"
        ),
    ],
)
def test_resumed_training_is_bit_identical(
    train: Run, cut_off: Callable[..., None], caching: dict[str, Any], tmp_path: Path,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    changes = {**caching, **changes}
    elsewhere = {**changes, "train.cache_folder": str(tmp_path / "other")}
    train(tmp_path / "whole", elsewhere)
    cut_off(tmp_path / "cut", changes, epoch=1)
    result = train(tmp_path / "cut", elsewhere)  # the cache folder does not matter
    assert result.status == "resumed"
    assert history(tmp_path / "whole") == history(tmp_path / "cut")
    files = [tmp_path / name / "adapter.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_resumed_run_keeps_its_fixed_axes(
    train: Run, cut_off: Callable[..., None], caching: dict[str, Any], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Also where they came from an adapter, or where principal components have other signs."""
    pca = {**caching, "method.projection_init": "pca_fixed"}
    train(tmp_path / "first", {**pca, "data.split.train": ["a"], "train.epochs": 1})
    start = {**pca, "train.start_from": str(tmp_path / "first")}
    for name, changes in (("from", start), ("own", pca)):
        train(tmp_path / name / "whole", changes)
        cut_off(tmp_path / name / "cut", changes, epoch=1)
        with monkeypatch.context() as patch:
            patch.setattr(Model, "calibrate", lambda *_: pytest.fail("calibrated again"))
            train(tmp_path / name / "cut", changes)
        assert history(tmp_path / name / "whole") == history(tmp_path / name / "cut")
        files = [tmp_path / name / each / "adapter.safetensors" for each in ("whole", "cut")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_sigkill_while_caching_and_while_training(
    train: Run, tiny_recipe: Callable[..., Path], caching: dict[str, Any], tmp_path: Path
) -> None:
    changes = {**caching, "train.epochs": 6, "data.samples": 24, "train.batch_size": 2}
    recipe, run = tiny_recipe(changes), tmp_path / "run"
    command = [str(Path(sys.executable).parent / "geotune"), "fit", str(recipe)]
    for reached in (
        lambda: list(tmp_path.glob("cache/*/.lock")),
        RunDir(run).last_checkpoint.exists,
    ):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 900
        while not reached():
            assert process.poll() is None, "training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.05)
        process.kill()
        process.wait()
    result = train(run, {**changes, "train.run": str(run)})
    assert result.status == "resumed"
    whole = {**changes, "train.cache_folder": str(tmp_path / "other")}
    train(tmp_path / "whole", whole)
    assert history(tmp_path / "whole") == history(run)
    files = [folder / "adapter.safetensors" for folder in (tmp_path / "whole", run)]
    assert files[0].read_bytes() == files[1].read_bytes()


# ---------------------------------------------------------------- cache keys
@pytest.fixture
def build(
    tiny_values: Callable[..., dict[str, Any]], caching: dict[str, Any]
) -> Callable[..., CacheResult]:
    """`geotune cache` on the tiny recipe."""

    def run(changes: dict[str, Any] | None = None, **options: Any) -> CacheResult:
        data = options.pop("data", None)
        values = tiny_values({**caching, **(changes or {})}, **({"data": data} if data else {}))
        return cache(parse_recipe(values), **options)

    return run


@pytest.mark.parametrize(("scene", "split"), [("a", "train"), ("b", "train"), ("c", "val")])
def test_only_changed_scenes_are_recomputed(
    build: Callable[..., CacheResult],
    write_tiny_scenes: Callable[[Path], Path],
    tmp_path: Path,
    scene: str,
    split: str,
) -> None:
    """Only the modification time changes, so the normalization stays."""
    data = write_tiny_scenes(tmp_path / "data")
    first = build(data=data)
    assert (first.samples, first.computed) == (68, 68)
    assert build(data=data).computed == 0
    path = data / "scenes" / f"{scene}.tif"
    os.utime(path, ns=(1, 1))
    changed = build(data=data).computed
    windows = 4 if split == "val" else 8 * num_windows(data, scene)
    assert changed == windows > 0
    assert build(data=data).computed == 0


def num_windows(data: Path, scene: str) -> int:
    """The number of training windows in a scene."""
    return sum(sample.name.startswith(f"{scene} ") for sample in FIXED[str(data)])


FIXED: dict[str, FixedWindowDataset] = {}


@pytest.fixture(autouse=True)
def remember_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Record the training windows of the last cache by data folder."""

    def fixed(windows: RandomWindowDataset) -> FixedWindowDataset:
        dataset = FixedWindowDataset(windows)
        FIXED[str(dataset.scenes[0].raster.path.parents[1])] = dataset
        return dataset

    monkeypatch.setattr(build_cache_module, "FixedWindowDataset", fixed)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"method.block_stride": 2}, id="taps"),
        pytest.param({"method.use_block_internals": True}, id="inside"),
        pytest.param({"method.frozen_precision": "bf16"}, id="frozen weights"),
        pytest.param({"train.precision": "bf16-mixed"}, id="computation"),
        pytest.param({"train.cache_precision": "int8"}, id="precision"),
        pytest.param({"backbone.bands": ["nir", "red", "green"]}, id="bands"),
        pytest.param({"backbone.name": "timm/test_vit2"}, id="backbone"),
        pytest.param({"data.split.train": ["a"]}, id="normalisation"),
    ],
)
def test_each_dependency_makes_another_feature_set(
    build: Callable[..., CacheResult], changes: dict[str, Any]
) -> None:
    first = build()
    other = build(changes)
    assert other.folder != first.folder
    assert other.computed == other.samples
    assert build().computed == 0


def test_window_size_changes_samples_but_not_the_set(build: Callable[..., CacheResult]) -> None:
    first = build()
    other = build({"data.window": 48})
    assert other.folder == first.folder and other.computed == other.samples


def test_code_of_a_custom_backbone_is_a_dependency(
    build: Callable[..., CacheResult], tmp_path: Path
) -> None:
    code = tmp_path / "custom.py"
    code.write_text(CUSTOM_BACKBONE)
    changes = {"backbone.name": f"python/{code}:build"}
    first = build(changes)
    assert build(changes).computed == 0
    code.write_text(CUSTOM_BACKBONE + "# other\n")
    assert build(changes).folder != first.folder


@pytest.mark.parametrize("package", ["timm", "torch"])
def test_versions_of_the_libraries_are_dependencies(
    build: Callable[..., CacheResult], monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    first = build()

    def version(name: str) -> str:
        return "99.0" if name == package else importlib.metadata.version(name)

    monkeypatch.setattr("geotune.feature_cache.cache_key.version", version)
    assert build().folder != first.folder


def test_code_that_computes_features_is_a_dependency(
    build: Callable[..., CacheResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build()
    monkeypatch.setattr("geotune.feature_cache.cache_key.extractor_hash", lambda: "other")
    assert build().folder != first.folder


@pytest.mark.parametrize(
    "file",
    ["model.py", "backbones/base.py", "data/raster/resample.py", "utils/feature_encoding.py"],
)
def test_code_that_reads_images_or_computes_features(
    monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    before, read_text = extractor_hash.__wrapped__(), Path.read_text

    def changed(path: Path, *args: Any, **options: Any) -> str:
        return read_text(path, *args, **options) + path.as_posix().endswith(file) * "\n"

    monkeypatch.setattr(Path, "read_text", changed)
    assert extractor_hash.__wrapped__() != before


@pytest.mark.parametrize("metadata", [["time"], []])
def test_a_changed_date_is_computed_again_if_the_backbone_receives_it(
    build: Callable[..., CacheResult],
    write_tiny_scenes: Callable[[Path], Path],
    tmp_path: Path,
    metadata: list[str],
) -> None:
    """The date is in a table, so no file of the scene changes."""
    data = write_tiny_scenes(tmp_path / "data")
    code, table = tmp_path / "custom.py", data / "scenes.csv"
    code.write_text(CUSTOM_BACKBONE)

    def write_table(date_of_b: str) -> None:
        dates = {"a": "2020-01-01", "b": date_of_b, "c": "2020-07-01", "d": "2020-10-01"}
        lines = [f"scenes/{name}.tif,labels/{name}.tif,{date}" for name, date in dates.items()]
        table.write_text("\n".join(["image,label,date", *lines]) + "\n")

    changes = {
        "backbone.name": f"python/{code}:build",
        "backbone.metadata": metadata,
        "data.scenes": str(table),
        "data.labels": None,
    }
    write_table("2020-04-01")
    build(changes, data=data)
    assert build(changes, data=data).computed == 0
    write_table("2021-04-01")
    again = build(changes, data=data).computed
    assert again == (8 * num_windows(data, "b") if metadata else 0)


def test_changed_location_mask_or_vrt_source_changes_the_keys(tmp_path: Path) -> None:
    side = 32

    def write(value: int = 1, name: str = "a.tif") -> Path:
        with rasterio.open(
            tmp_path / name, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8",
            crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10),
        ) as file:  # fmt: skip
            file.write(np.full((1, side, side), value, np.uint8))
        os.utime(tmp_path / name, ns=(1, value))
        return tmp_path / name

    def key(path: Path, *metadata: str, **changes: Any) -> str:
        raster = replace(open_raster(path), **changes)
        windows = SimpleNamespace(
            scenes=[SimpleNamespace(raster=raster)],
            windows=[SimpleNamespace(scene=0, row=0, col=0)],
            num_orientations=1,
            window=side,
            metadata=metadata,
        )
        return sample_keys(cast("GridWindowDataset", windows))[0]

    path, mask = write(), tmp_path / "a.tif.msk"
    first = key(path)
    write(2, name="other.tif").replace(path)
    os.utime(path, ns=(1, 1))  # size and modification time are those of the file it replaces
    assert key(path) != first
    elsewhere = from_origin(6e5, 5e6, 10, 10)
    assert key(path) == key(path, transform=elsewhere)
    assert key(path, "location") != key(path, "location", transform=elsewhere)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(np.full((side, side), 255, np.uint8))
    os.utime(path, ns=(1, 1))
    assert mask.is_file()
    os.utime(mask, ns=(1, 1))
    with_mask = key(path)
    os.utime(mask, ns=(1, 2))
    assert key(path) != with_mask
    vrt = tmp_path / "b.vrt"
    source = write(name="b.tif")
    with rasterio.open(source) as file, WarpedVRT(file) as warped:
        rasterio.shutil.copy(warped, vrt, driver="VRT")
    first = key(vrt)
    write(2, name="b.tif")
    assert key(vrt) != first


CUSTOM_BACKBONE = """
import geotune
from dataclasses import replace

def build(request):
    built = geotune.backbone("timm/test_vit", pretrained=False, bands=request.bands)
    built.spec, built.name, built.metadata = request, request.name, request.metadata
    return built
"""


def test_int8_and_fixed_projections_shrink_the_cache(
    build: Callable[..., CacheResult], tmp_path: Path
) -> None:
    """By half, and by the ratio of tap to stream width, up to headers and scales."""

    def size(name: str, **changes: Any) -> int:
        keys = {key.replace("__", "."): value for key, value in changes.items()}
        folder = {"train.cache_folder": str(tmp_path / name), "data.window": 64}
        return build({**keys, **folder}).bytes

    whole = size("whole")
    assert size("int8", train__cache_precision="int8") < 0.7 * whole
    assert size("full", train__cache_precision="fp32") > 1.9 * whole
    assert size("pca", method__projection_init="pca_fixed") < whole / 4


# ---------------------------------------------------------------- errors and notes
@pytest.mark.parametrize(
    "method", [{"kind": "lora"}, {"kind": "full"}, {"kind": "dtl", "feedback_from": 2}]
)
@pytest.mark.parametrize("command", ["fit", "cache"])
def test_method_that_changes_the_backbone_is_rejected(
    train: Run, build: Callable[..., CacheResult], caching: dict[str, Any], tmp_path: Path,
    method: dict[str, Any], command: str,
) -> None:  # fmt: skip
    changes = {**caching, "method": method}
    with raises("cache-not-possible", key="train.cache", mentions=[method["kind"]]):
        train(tmp_path / "run", changes) if command == "fit" else build(changes)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


def test_cache_command_rejects_memory(build: Callable[..., CacheResult]) -> None:
    with raises("cache-not-possible", key="train.cache", mentions=["memory"]):
        build({"train.cache": "memory"})


def test_limit_is_checked_before_anything_is_written(
    build: Callable[..., CacheResult], tmp_path: Path
) -> None:
    with raises("cache-too-large", key="train.cache_limit", mentions=["0.05 MB", "68 windows"]):
        build({"train.cache_limit": "50kB"})
    assert not list(tmp_path.rglob("*.safetensors"))
    messages: list[str] = []
    first = build({"train.cache_limit": "10MB"}, on_message=messages.append)
    [line] = [line for line in messages if line.startswith("computing the features of 68 windows")]
    assert str(first.folder) in line and "MB" in line
    assert build({"train.cache_limit": "1kB"}).computed == 0  # everything is cached
    with raises("cache-too-large", key="train.cache_limit", mentions=["already holds"]):
        build({"train.cache_limit": f"{first.bytes + 1000}B", "method.block_stride": 2})
    assert build().computed == 0


def test_damaged_shard_is_reported_and_repaired(
    train: Run, build: Callable[..., CacheResult], caching: dict[str, Any], tmp_path: Path
) -> None:
    train(tmp_path / "whole", caching)
    shard = next(tmp_path.glob("cache/*/00000.safetensors"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    messages: list[str] = []
    train(tmp_path / "repaired", caching, on_message=messages.append)
    assert any(str(shard) in line and "damaged" in line for line in messages)
    assert shard.read_bytes() == good
    assert history(tmp_path / "whole") == history(tmp_path / "repaired")


def test_notes_describe_the_fixed_windows(
    train: Run, caching: dict[str, Any], tmp_path: Path
) -> None:
    notes = train(tmp_path / "run", {**caching, "train.epochs": 1}).notes
    assert any("same 8 training windows, each in all eight" in note for note in notes)
    assert any("data.brightness 0.2 is ignored" in note for note in notes)
    plain = {"data.augment": False, "data.brightness": 0}
    notes = train(tmp_path / "plain", {**caching, **plain, "train.epochs": 1}).notes
    assert any(note.endswith("the same 8 training windows") for note in notes)
    assert not any("brightness" in note for note in notes)


def test_out_of_memory_halves_the_batch(
    build: Callable[..., CacheResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = build({"train.cache_folder": str(tmp_path / "whole")})
    features = Model.features

    def limited(self: Model, images: Any, **others: Any) -> Any:
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features(self, images, **others)

    monkeypatch.setattr(Model, "features", limited)
    assert build().computed == whole.computed == 68
    monkeypatch.setattr(Model, "features", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build({"data.window": 48})
