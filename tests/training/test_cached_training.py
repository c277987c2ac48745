"""Training from kept features: the same losses, whatever was cut off, changed or broken before."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from geotune.api.caching import CacheResult, cache
from geotune.api.fitting import FitResult
from geotune.backbones.base import Backbone
from geotune.config import parse_recipe
from geotune.data.window_datasets import FixedWindowDataset, RandomWindowDataset
from geotune.errors import GeotuneError
from geotune.feature_cache import build_cache as caches
from geotune.feature_cache.cached_dataset import CachedWindowDataset
from geotune.model import Model
from geotune.training.run_dir import RunDir
from geotune.types import Batch
from geotune.utils.feature_encoding import DecodedFeatures

Run = Callable[..., FitResult]


def history(run: Path) -> list[dict[str, float]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in rows]


def losses(run: Path) -> list[float]:
    return [row[name] for row in history(run) for name in ("train/loss", "val/loss")]


@pytest.fixture
def caching(tmp_path: Path) -> dict[str, Any]:
    """Changes to a recipe that keep features in the test's folder."""
    return {"train.cache": "disk", "train.cache_folder": str(tmp_path / "cache")}


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, train: Run) -> Run:
    """Trains as `train` does, on the windows that a cache would have."""

    def run(*arguments: Any, **options: Any) -> FitResult:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "geotune.data.datamodule.RandomWindowDataset",
                lambda *a, **k: FixedWindowDataset(RandomWindowDataset(*a, **k)),
            )
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
def test_the_losses_are_those_of_streaming(
    train: Run, stream: Run, caching: dict[str, Any], tmp_path: Path, method: str
) -> None:
    """In every order and turn of two epochs; to 1e-6 with float32, to 1e-3 with bfloat16."""
    changes = {**METHODS[method], "train.epochs": 2, "train.activation_checkpointing": "none"}
    stream(tmp_path / "stream", {**changes, "data.brightness": 0})
    for precision, allowed in (("fp32", 1e-6), ("bf16", 1e-3)):
        train(tmp_path / precision, {**changes, **caching, "train.cache_precision": precision})
        expected = pytest.approx(losses(tmp_path / "stream"), abs=allowed)
        assert losses(tmp_path / precision) == expected, precision


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_the_first_epoch_is_that_of_any_training(
    train: Run, caching: dict[str, Any], tmp_path: Path, cache: str
) -> None:
    """Without what varies, the windows of the first epoch are those without a cache."""
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


def images_seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ends with how many images backbones have seen since it was last popped, if any."""
    counts: list[int] = []
    forward = Backbone.forward

    def counting(self: Backbone, images: Any, **options: Any) -> Any:
        if images.shape[-1] == 32:  # no probe of a method
            counts[:] = [sum(counts) + len(images)]
        return forward(self, images, **options)

    monkeypatch.setattr(Backbone, "forward", counting)
    return counts


def test_the_backbone_runs_once_for_each_window_and_way(
    train: Run, caching: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight ways for each training window, one for those of validation; then no more but for the
    metrics of the best epoch, whatever else of the recipe changes."""
    seen = images_seen(monkeypatch)
    first = train(tmp_path / "first", caching)
    assert first.summary["cache"]["computed"] == 8 * 8 + 4
    beside = seen.pop()  # what is run without a cache, too: the best epoch and its examples
    changed = {
        "train.seed": 3, "train.lr": 1e-2, "train.epochs": 2, "decoder": {"kind": "fcn"},
        "method": {"kind": "lst", "stem_width": 4}, "train.batch_size": 2,
    }  # fmt: skip
    for at, key in enumerate(changed):
        result = train(tmp_path / str(at), {**caching, key: changed[key]})
        assert result.summary["cache"]["computed"] == 0, key
        assert seen.pop() == beside - (8 * 8 + 4), key


def test_turns_are_computed_from_turned_images(
    train: Run, caching: dict[str, Any], tmp_path: Path
) -> None:
    """A ViT knows where up is, so its features of a turned image are others."""
    seen: list[CachedWindowDataset] = []
    with pytest.MonkeyPatch.context() as patch:
        build = caches.build_cache

        def watched(model: Any, *arguments: Any, **options: Any) -> Any:
            found = build(model, *arguments, **options)
            model.eval()
            for which in range(2):
                for way in range(8):
                    sample = found.train.windows.sample(which, way)
                    held = found.train.store.read(found.train.keys[which * 8 + way])
                    kept = DecodedFeatures({name: maps[None] for name, maps in held.items()})
                    expected = model.features(**Batch.from_samples([sample]).inputs)
                    for name, maps in expected.items():
                        torch.testing.assert_close(kept[name], maps, rtol=1e-4, atol=1e-4)
            seen.append(found.train)
            return found

        patch.setattr("geotune.training.trainer.build_cache", watched)
        train(tmp_path / "run", {**caching, "train.cache_precision": "fp32", "train.epochs": 1})
    first, turned = (seen[0].store.read(seen[0].keys[way]) for way in (0, 1))
    assert not torch.allclose(first["0.feature"].rot90(1, (0, 1)), turned["0.feature"], atol=0.01)


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
def test_a_training_that_was_cut_off_goes_on_bit_for_bit(
    train: Run, cut_off: Callable[..., None], caching: dict[str, Any], tmp_path: Path,
    changes: dict[str, Any],
) -> None:  # fmt: skip
    changes = {**caching, **changes}
    elsewhere = {**changes, "train.cache_folder": str(tmp_path / "other")}
    train(tmp_path / "whole", elsewhere)
    cut_off(tmp_path / "cut", changes, epoch=1)
    result = train(tmp_path / "cut", elsewhere)  # where features are kept does not matter
    assert result.status == "went on"
    assert history(tmp_path / "whole") == history(tmp_path / "cut")
    files = [tmp_path / name / "adapter.safetensors" for name in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.slow
def test_sigkill(
    train: Run, tiny_recipe: Callable[..., Path], caching: dict[str, Any], tmp_path: Path
) -> None:
    """The command is killed while it builds the cache, and again while it trains."""
    changes = {**caching, "train.epochs": 6, "data.samples": 24, "train.batch_size": 2}
    recipe, run = tiny_recipe(changes), tmp_path / "run"
    command = [str(Path(sys.executable).parent / "geotune"), "fit", str(recipe)]
    for there in (lambda: list(tmp_path.glob("cache/*/.lock")), RunDir(run).last_checkpoint.exists):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 900
        while not there():
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        time.sleep(0.05)
        process.kill()
        process.wait()
    result = train(run, {**changes, "train.run": str(run)})
    assert result.status == "went on"
    whole = {**changes, "train.cache_folder": str(tmp_path / "other")}
    train(tmp_path / "whole", whole)
    assert history(tmp_path / "whole") == history(run)
    files = [folder / "adapter.safetensors" for folder in (tmp_path / "whole", run)]
    assert files[0].read_bytes() == files[1].read_bytes()


# ---------------------------------------------------------------- what changes
@pytest.fixture
def build(
    tiny_values: Callable[..., dict[str, Any]], caching: dict[str, Any]
) -> Callable[..., CacheResult]:
    """`geotune cache` on the tiny recipe; notes are appended to `said`."""

    def run(changes: dict[str, Any] | None = None, **options: Any) -> CacheResult:
        data = options.pop("data", None)
        values = tiny_values({**caching, **(changes or {})}, **({"data": data} if data else {}))
        return cache(parse_recipe(values), **options)

    return run


@pytest.mark.parametrize(("scene", "of"), [("a", "train"), ("b", "train"), ("c", "val")])
def test_a_changed_scene_is_recomputed_and_nothing_else(
    build: Callable[..., CacheResult],
    write_tiny_scenes: Callable[[Path], Path],
    tmp_path: Path,
    scene: str,
    of: str,
) -> None:
    """Rewritten with the same pixels, so that the normalisation stays; by its time it is new."""
    data = write_tiny_scenes(tmp_path / "data")
    first = build(data=data)
    assert (first.samples, first.computed) == (68, 68)
    assert build(data=data).computed == 0
    path = data / "scenes" / f"{scene}.tif"
    os.utime(path, ns=(1, 1))
    changed = build(data=data).computed
    windows = 4 if of == "val" else 8 * names_of(data, scene)
    assert changed == windows > 0
    assert build(data=data).computed == 0


def names_of(data: Path, scene: str) -> int:
    """How many of the eight training windows lie in a scene."""
    recipe: list[str] = [s.name for s in FIXED[str(data)]]
    return sum(name.startswith(f"{scene} ") for name in recipe)


FIXED: dict[str, FixedWindowDataset] = {}


@pytest.fixture(autouse=True)
def remember_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The training windows of the last cache, by the folder of their data."""

    def fixed(windows: RandomWindowDataset) -> FixedWindowDataset:
        found = FixedWindowDataset(windows)
        FIXED[str(found.scenes[0].raster.path.parents[1])] = found
        return found

    monkeypatch.setattr(caches, "FixedWindowDataset", fixed)


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
def test_what_features_depend_on_makes_another_set(
    build: Callable[..., CacheResult], changes: dict[str, Any]
) -> None:
    first = build()
    other = build(changes)
    assert other.folder != first.folder
    assert other.computed == other.samples
    assert build().computed == 0


def test_another_window_is_another_sample(build: Callable[..., CacheResult]) -> None:
    first = build()
    other = build({"data.window": 48})
    assert other.folder == first.folder and other.computed == other.samples


def test_code_of_ones_own_counts(build: Callable[..., CacheResult], tmp_path: Path) -> None:
    code = tmp_path / "mine.py"
    code.write_text(OWN_BACKBONE)
    changes = {"backbone.name": f"python/{code}:build"}
    first = build(changes)
    assert build(changes).computed == 0
    code.write_text(OWN_BACKBONE + "# other\n")
    assert build(changes).folder != first.folder


OWN_BACKBONE = """
import geotune
from dataclasses import replace

def build(request):
    built = geotune.backbone("timm/test_vit", pretrained=False, bands=request.bands)
    built.spec, built.name = request, request.name
    return built
"""


def test_int8_and_fixed_projections_make_it_smaller(
    build: Callable[..., CacheResult], tmp_path: Path
) -> None:
    """By half, and by what the stream is narrower than the taps, up to headers and scales."""

    def size(at: str, **changes: Any) -> int:
        named = {key.replace("__", "."): value for key, value in changes.items()}
        folder = {"train.cache_folder": str(tmp_path / at), "data.window": 64}
        return build({**named, **folder}).bytes

    whole = size("whole")
    assert size("int8", train__cache_precision="int8") < 0.7 * whole
    assert size("full", train__cache_precision="fp32") > 1.9 * whole
    assert size("pca", method__projection_init="pca_fixed") < whole / 4


# ---------------------------------------------------------------- what is refused
@pytest.mark.parametrize(
    "method", [{"kind": "lora"}, {"kind": "full"}, {"kind": "dtl", "feedback_from": 2}]
)
@pytest.mark.parametrize("job", ["fit", "cache"])
def test_a_method_that_changes_the_backbone_is_refused(
    train: Run, build: Callable[..., CacheResult], caching: dict[str, Any], tmp_path: Path,
    method: dict[str, Any], job: str,
) -> None:  # fmt: skip
    changes = {**caching, "method": method}
    with pytest.raises(GeotuneError, match=rf"train\.cache: .*method\.kind {method['kind']} ch"):
        train(tmp_path / "run", changes) if job == "fit" else build(changes)
    assert not (tmp_path / "cache").exists() and not (tmp_path / "run").exists()


def test_memory_is_not_for_the_command(build: Callable[..., CacheResult]) -> None:
    with pytest.raises(GeotuneError, match=r"train\.cache: found memory, .*train\.cache=disk"):
        build({"train.cache": "memory"})


def test_the_limit_holds(build: Callable[..., CacheResult], tmp_path: Path) -> None:
    """It is told what is needed; nothing is written, and what was there before stays."""
    with pytest.raises(GeotuneError, match=r"train\.cache_limit 0\.05 MB: the features of 68 win"):
        build({"train.cache_limit": "50kB"})
    assert not list(tmp_path.rglob("*.safetensors"))
    said: list[str] = []
    first = build({"train.cache_limit": "10MB"}, on_message=said.append)
    [line] = [line for line in said if line.startswith("computing the features of 68 windows")]
    assert str(first.folder) in line and "MB" in line
    assert build({"train.cache_limit": "1kB"}).computed == 0  # nothing more is needed
    with pytest.raises(GeotuneError, match=r"holds .* already.* may be deleted"):
        build({"train.cache_limit": f"{first.bytes + 1000}B", "method.block_stride": 2})
    assert build().computed == 0


def test_a_damaged_shard_is_said_and_mended(
    train: Run, build: Callable[..., CacheResult], caching: dict[str, Any], tmp_path: Path
) -> None:
    train(tmp_path / "whole", caching)
    shard = next(tmp_path.glob("cache/*/00000.safetensors"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    said: list[str] = []
    train(tmp_path / "mended", caching, on_message=said.append)
    assert any(str(shard) in line and "damaged" in line for line in said)
    assert shard.read_bytes() == good
    assert history(tmp_path / "whole") == history(tmp_path / "mended")


def test_notes_say_what_does_not_vary(train: Run, caching: dict[str, Any], tmp_path: Path) -> None:
    notes = train(tmp_path / "run", {**caching, "train.epochs": 1}).notes
    assert any("same 8 in every epoch, each in all eight ways" in note for note in notes)
    assert any("data.brightness 0.2 is left out" in note for note in notes)
    plain = {"data.augment": False, "data.brightness": 0}
    notes = train(tmp_path / "plain", {**caching, **plain, "train.epochs": 1}).notes
    assert any(note.endswith("the same 8 in every epoch") for note in notes)
    assert not any("brightness" in note for note in notes)


def test_where_memory_runs_out_fewer_windows_are_computed_at_once(
    build: Callable[..., CacheResult], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = build({"train.cache_folder": str(tmp_path / "whole")})
    features = Model.features

    def small(self: Model, images: Any, **others: Any) -> Any:
        if len(images) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return features(self, images, **others)

    monkeypatch.setattr(Model, "features", small)
    assert build().computed == whole.computed == 68
    monkeypatch.setattr(Model, "features", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build({"data.window": 48})
