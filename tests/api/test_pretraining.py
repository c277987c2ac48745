"""`geotune pretrain`: from images without labels to a backbone or an adapter for a later task."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import geotune
from geotune.api.pretraining import pretraining_recipe
from geotune.api.starting import start_from_adapter
from geotune.config import parse_recipe
from geotune.factory.build_data import build_data
from geotune.factory.build_model import build_training, load_adapter
from geotune.hub.download import adapter_source
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
Command = Callable[..., tuple[int, str, str]]
BANDS = ["red", "green", "nir"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the small ViT, as another program would write them."""
    path = tmp_path_factory.mktemp("weights") / "vit.safetensors"
    backbone = geotune.backbone("timm/test_vit", bands=3, pretrained=False)
    generator = torch.Generator().manual_seed(3)
    state = {
        name: tensor + 0.1 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in backbone.model.state_dict().items()
    }
    save_file(state, path)
    return path


@pytest.fixture
def values(tiny_values: Values, weights: Path) -> Values:
    """The recipe of a later task on pretrained weights."""

    def make(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        backbone = {"name": "timm/test_vit", "weights": str(weights), "bands": BANDS}
        return tiny_values({"backbone": backbone, "train.epochs": 2, **(changes or {})})

    return make


EST = {"kind": "est", "min_width": 8, "stem_width": 0}
FULL = {"kind": "full", "stem_width": 0}
LORA = {"kind": "lora", "rank": 2, "stem_width": 0}


# ---------------------------------------------------------------- the recipe
def test_the_recipe_keeps_all_but_task_decoder_and_labels(values: Values) -> None:
    later = values(
        {
            "decoder": {"kind": "unet", "channels": [8]},
            "data.class_values": {"land": 0, "water": 1},
            "train.monitor": "iou/water",
            "train.run": "runs/ships",
        }
    )
    notes: list[str] = []
    changes = ["task.mask_ratio=0.75", "method.kind=full", "train.lr=0.1"]
    recipe = pretraining_recipe(later, changes, notes.append)
    assert recipe.task.model_dump() == {
        "kind": "reconstruct",
        "mask_ratio": 0.75,
        "patch": 16,
        "teacher_weight": 1.0,
    }
    assert recipe.decoder.model_dump() == {"kind": "linear", "levels": "all", "upsample": "stride"}
    assert (recipe.method.kind, recipe.train.lr, recipe.train.monitor) == ("full", 0.1, None)
    assert recipe.train.run == Path("runs/ships_pretrain")
    assert recipe.data.scenes == later["data"]["scenes"]  # type: ignore[union-attr]
    assert any("iou/water" in note for note in notes)
    assert pretraining_recipe(later, ["train.run=x"]).train.run == Path("x")
    assert pretraining_recipe(recipe) == recipe
    bare = {name: section for name, section in later.items() if name not in ("task", "decoder")}
    del bare["data"]["labels"], bare["data"]["class_values"]
    assert pretraining_recipe(bare).task.kind == "reconstruct"


def test_the_method_gets_the_options_of_the_later_decoder(values: Values) -> None:
    later = values(
        {
            "method": {"kind": "est"},
            "decoder": {"kind": "global_pool"},
            "task": {"kind": "classify", "classes": ["a", "b"]},
        }
    )
    method: Any = pretraining_recipe(later).method
    assert (method.stem_width, method.output) == (0, "sum")
    method = pretraining_recipe(values({"method": {"kind": "est"}})).method
    assert (method.stem_width, method.output) == (32, None)


@pytest.mark.parametrize(
    ("key", "value", "at", "word"),
    [
        ("train.cache", "memory", "train.cache", "hides other patches"),
        ("train.strategy", "fsdp", "train.strategy", "fsdp"),
        ("method", {"kind": "frozen"}, "method.kind", "frozen"),
        ("task", {"mask_ratio": 0.0}, "task.mask_ratio", "0"),
        ("task", {"mask_ratio": 1.0}, "task.mask_ratio", "1"),
        ("task", {"patch": 12}, "task.patch", "32"),
        ("task", {"patch": 32}, "task.patch", "several"),
        ("task", {"teacher_weight": -1}, "task.teacher_weight", "0"),
        (
            "backbone",
            {"name": "timm/test_vit", "pretrained": False},
            "task.teacher_weight",
            "random",
        ),
        ("distill", {"run": "runs/ships"}, "distill", "reconstruct"),
        ("decoder", {"kind": "fcos"}, "decoder.kind", "per pixel"),
    ],
)
def test_what_cannot_work_is_rejected(
    values: Values, key: str, value: Any, at: str, word: str
) -> None:
    changes = {"task": {"kind": "reconstruct"}, "decoder": {"kind": "linear"}}
    if key == "task":
        changes["task"] |= value
    else:
        changes[key] = value
    with raises("recipe-invalid", key=at, mentions=[word]):
        parse_recipe(values(changes))


# ---------------------------------------------------------------- training
def run_of(values: Values, folder: Path, method: dict[str, Any], **changes: Any) -> Any:
    return geotune.pretrain(values({"method": method, **changes}), run=folder)


@pytest.mark.parametrize("method", [FULL, LORA, EST], ids=lambda m: m["kind"])
def test_planned_memory_is_that_of_the_training(
    values: Values, tmp_path: Path, method: dict[str, Any]
) -> None:
    later = values({"method": method, "train.epochs": 1})
    planned = geotune.plan(pretraining_recipe(later)).prediction.cpu.total
    run = geotune.pretrain(later, run=tmp_path / "run", estimate_memory=True)
    memory = run.summary["peak_memory"]
    assert memory["predicted_bytes"] == planned
    assert memory["tracked_bytes"] == pytest.approx(planned, rel=0.02)


class KilledError(Exception):
    """Stands for a kill."""


class KilledInSecondEpoch(Callback):
    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.current_epoch == 1:
            raise KilledError


@pytest.mark.parametrize("method", [FULL, EST], ids=lambda m: m["kind"])
def test_resumed_pretraining_is_bit_identical(
    values: Values, tmp_path: Path, method: dict[str, Any]
) -> None:
    later = values({"method": method, "train.epochs": 3})
    geotune.pretrain(later, run=tmp_path / "whole")
    cut = tmp_path / "cut"
    with pytest.raises(KilledError):
        geotune.pretrain(later, run=cut, callbacks=lambda: [KilledInSecondEpoch()])
    assert not (cut / "run.json").exists()
    assert geotune.pretrain(cut).status == "resumed"
    for name in ("adapter.safetensors", "backbone.safetensors"):
        files = [tmp_path / folder / name for folder in ("whole", "cut")]
        if method is FULL or name.startswith("adapter"):
            assert files[0].read_bytes() == files[1].read_bytes()
        else:
            assert not any(path.exists() for path in files)
    assert geotune.pretrain(cut).status == "complete"


@pytest.mark.parametrize("method", [FULL, LORA], ids=lambda m: m["kind"])
def test_the_backbone_is_used_by_file(
    values: Values, tmp_path: Path, weights: Path, method: dict[str, Any]
) -> None:
    run = run_of(values, tmp_path / "pretrained", method)
    path = run.run / "backbone.safetensors"
    fingerprint = run.summary["continued_backbone"]["fingerprint"]
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["geotune_backbone"])
    assert header["fingerprint"] == fingerprint and header["bands"] == BANDS
    assert header["base_fingerprint"] == run.summary["backbone"]["fingerprint"] != fingerprint
    assert header["source"] == str(weights) and header["method"] == method["kind"]

    backbone = geotune.backbone("timm/test_vit", bands=BANDS, weights=path)
    assert backbone.fingerprint == fingerprint and not backbone.random_weights
    assert str(path) in backbone.source and str(weights) in backbone.source
    original = geotune.backbone("timm/test_vit", bands=BANDS, weights=weights)
    assert backbone.model.state_dict().keys() == original.model.state_dict().keys()
    student = load_adapter(run.run).model.encoder
    images = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        ours = backbone.eval()(images, taps=student.reader.out_indices).maps
        theirs = student.eval()(images).maps
        before = original.eval()(images, taps=student.reader.out_indices).maps
    for one, other, first in zip(ours, theirs, before, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
        assert (one - first).abs().max() > 1e-3
    built = load_adapter(run.run)
    assert backbone.normalization is not None
    assert backbone.normalization.offset == built.normalization.offset

    later = values({"method": EST, "train.epochs": 1})
    later["backbone"]["weights"] = str(path)
    fitted = geotune.fit(later, run=tmp_path / "later")
    assert fitted.summary["backbone"]["fingerprint"] == fingerprint
    assert geotune.load_run(fitted.run).predict(later["data"]["scenes"].replace("*", "d")).shape
    plain = {**later, "backbone": values()["backbone"]}
    other = geotune.fit(plain, run=tmp_path / "plain")
    assert other.metrics != fitted.metrics


def test_weights_of_another_model_or_bands_are_rejected(values: Values, tmp_path: Path) -> None:
    run = run_of(values, tmp_path / "run", FULL, **{"train.epochs": 1})
    path = run.run / "backbone.safetensors"
    for name, bands, word in (
        ("timm/test_vit2", BANDS, "test_vit2"),
        ("timm/test_vit", ["nir", "green", "red"], "same order"),
    ):
        with raises("weights-mismatch", key="backbone.weights", file=path, mentions=[word]):
            geotune.backbone(name, bands=bands, weights=path)
    state = load_file(path)
    save_file(state, path, {"geotune_backbone": '{"name": "timm/test_vit"}'})
    with raises("weights-mismatch", file=path, mentions=["description"]):
        geotune.backbone("timm/test_vit", bands=BANDS, weights=path)


def test_a_side_network_starts_from_its_pretraining(values: Values, tmp_path: Path) -> None:
    run = run_of(values, tmp_path / "run", EST)
    assert not (run.run / "backbone.safetensors").exists()
    assert "est" in run.summary["continued_backbone"]["reason"]
    later = parse_recipe(
        values({"method": {**EST, "stem_width": 4}, "decoder": {"kind": "unet", "channels": [8]}})
    )
    built = build_training(later, build_data(later).statistics)
    before = {name: p.detach().clone() for name, p in built.model.named_parameters()}
    note = start_from_adapter(built, later, adapter_source(run.run))
    taken = load_file(run.run / "adapter.safetensors")
    assert any(name.startswith("projections.") for name in taken)
    for name, parameter in built.model.named_parameters():
        if name.startswith("encoder.reader."):
            assert torch.equal(parameter, taken[name])
        else:
            assert torch.equal(parameter, before[name])
    assert note is not None and "decoder, projections" in note and "encoder.stem" in note
    result = geotune.fit(
        values({"method": EST, "train.start_from": str(run.run)}), run=tmp_path / "later"
    )
    assert any("taken from its pretraining" in text for text in result.notes)
    fresh = geotune.fit(values({"method": EST}), run=tmp_path / "fresh")
    assert fresh.metrics != result.metrics
    for method, key in ((LORA, "method.kind"), ({**EST, "min_width": 16}, "train.start_from")):
        with raises("adapter-mismatch", key=key, file=run.run):
            geotune.fit(
                values({"method": method, "train.start_from": str(run.run)}), run=tmp_path / "no"
            )


def test_the_run_of_another_task_is_no_pretraining(values: Values, tmp_path: Path) -> None:
    run = geotune.fit(values({"train.epochs": 1}), run=tmp_path / "run").run
    with raises("settings-incompatible", key="task.kind", file=run, mentions=["segment"]):
        geotune.pretrain(run)


def test_principal_components_of_the_start_are_kept(values: Values, tmp_path: Path) -> None:
    method = {**EST, "projection_init": "pca"}
    run = run_of(values, tmp_path / "run", method, **{"train.epochs": 1})
    later = parse_recipe(values({"method": method}))
    data = build_data(later)
    built = build_training(later, data.statistics)
    start_from_adapter(built, later, adapter_source(run.run))
    before = built.model.encoder.reader.get_parameter("down.0.weight").detach().clone()
    built.model.calibrate_on(data.train)
    assert torch.equal(built.model.encoder.reader.get_parameter("down.0.weight"), before)


def test_quantized_weights_give_no_backbone_but_an_adapter(values: Values, tmp_path: Path) -> None:
    run = run_of(
        values, tmp_path / "run", {**LORA, "frozen_precision": "int8"}, **{"train.epochs": 1}
    )
    assert run.summary["continued_backbone"]["fingerprint"] == ""
    assert run.metrics["cosine_distance"] > 0


def test_command_line(
    geotune: Command, values: Values, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "water.yaml"
    recipe.write_text(yaml.safe_dump(values({"method": EST, "train.epochs": 1})), encoding="utf-8")
    code, out, err = geotune("plan", recipe, "--pretrain", "method.kind=full", "--json")
    assert code == 0, err
    full = json.loads(out)["peak_bytes"]
    code, out, _ = geotune("plan", recipe, "--pretrain", "--json")
    assert code == 0 and json.loads(out)["peak_bytes"] < full
    code, out, err = geotune("pretrain", recipe)
    assert code == 0, err
    run = Path("runs/water_pretrain")
    assert f"--from {run}" in out and "does not change the weights" in out
    report = (run / "report.html").read_text(encoding="utf-8")
    assert "visible to the model" in report and "Teacher" in report
    code, out, err = geotune("test", run)
    assert code == 0 and "cosine_distance" in out, err
    code, _, err = geotune("predict", run, values()["data"]["scenes"], "--out", "maps")
    assert code == 1 and "option-not-applicable" in err
    code, out, err = geotune("fit", recipe, "train.run=later", "--from", run)
    assert code == 0 and "taken from its pretraining" in err, err
    code, out, err = geotune("pretrain", recipe, "method.kind=full", "train.run=full")
    assert code == 0 and "backbone.weights=full/backbone.safetensors" in out, err
