"""The two files of an adapter: contents, and errors of damaged or mismatched files."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from geotune import Est, Lora
from geotune.adapter_config import (
    ADAPTER_CONFIG,
    TENSORS,
    AdapterConfig,
    PredictionSettings,
    load_adapter_config,
)
from geotune.adapter_io import (
    adapter_state,
    check_base_model,
    load_adapter_state,
    read_tensors,
    save_adapter,
    save_tensors,
)
from geotune.backbones.base import Backbone
from geotune.config.data_options import QualityOptions
from geotune.config.decoder_options import LinearOptions
from geotune.decoders.linear import Linear
from geotune.model import Model
from geotune.types import Normalization
from helpers.errors import raises
from helpers.memory import peak_growth

MakeBackbone = Callable[..., Backbone]

BANDS = ("B02", "B03", "B04", "B08")
NORMALIZATION = Normalization(BANDS, (0.0, 1.0, 2.0, 3.0), (10.0, 20.0, 30.0, 40.0))
SECTIONS: dict[str, Any] = {
    "backbone": {"name": "timm/test_resnet", "pretrained": False},
    "method": {"kind": "est"},
    "decoder": {"kind": "linear"},
    "task": {"kind": "segment", "classes": ["land", "water"]},
}
PREDICTION = PredictionSettings(
    window=64,
    resolution_m=10,
    bands={"S2L2A": ["B02"]},
    nodata=0,
    quality=QualityOptions(pattern="", values=[3, 8]),
    score_thresholds={"land": None, "water": 0.25},
)


@pytest.fixture(scope="module")
def saved(
    make_backbone: MakeBackbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Path]:
    """A model and the folder of its adapter."""
    encoder = Est(reduction=8, min_width=4, stem_width=4).attach(make_backbone("resnet"))
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 2, LinearOptions()))
    folder = tmp_path_factory.mktemp("adapter") / "run"
    size = save_adapter(
        folder,
        adapter_state(model),
        backbone=encoder.backbone,
        normalization=NORMALIZATION,
        sections=SECTIONS,
        prediction=PREDICTION,
        version="1.2.3",
    )
    assert size == (folder / TENSORS).stat().st_size
    return model, folder


@pytest.fixture
def model(saved: tuple[Model, Path]) -> Model:
    return copy.deepcopy(saved[0])


@pytest.fixture
def folder(saved: tuple[Model, Path], tmp_path: Path) -> Path:
    """A folder with a saved adapter, for tests that change it."""
    return Path(shutil.copytree(saved[1], tmp_path / "run"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    change(config)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))


def update_hash(folder: Path) -> None:
    """Update the hash in `adapter.json` to that of the changed tensors."""
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    edit(folder, lambda c: c.update(hash=digest))


def test_adapter_json_describes_the_base_model_and_sections(model: Model, folder: Path) -> None:
    backbone = model.encoder.backbone
    assert load_adapter_config(folder) == AdapterConfig(
        base={
            "name": "timm/test_resnet",
            "fingerprint": backbone.fingerprint,
            "source": "random weights",
            "licence": "none",
        },
        normalization=NORMALIZATION,
        sections=SECTIONS,
        prediction=PREDICTION,
        geotune="1.2.3",
        hash=hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest(),
    )
    assert sorted(os.listdir(folder)) == [ADAPTER_CONFIG, TENSORS]


def test_the_threshold_of_the_rarest_class_is_read_as_0_2_0_wrote_it(folder: Path) -> None:
    water = {"name": "water", "threshold": 0.25, "iou": 0.5, "iou_most_likely": None}

    def of_0_2_0(config: dict[str, Any]) -> None:
        del config["prediction"]["class_thresholds"]
        config["prediction"]["class_threshold"] = water

    edit(folder, of_0_2_0)
    (only,) = load_adapter_config(folder).prediction.class_thresholds
    assert only.model_dump() == water


def test_adapter_has_trained_parameters_and_updated_buffers_only(
    model: Model, folder: Path
) -> None:
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    buffers = {
        f"encoder.stem.{name}"
        for name, _ in model.encoder.stem.named_buffers()  # type: ignore[union-attr]
    }
    assert buffers
    stored = load_file(folder / TENSORS)
    assert stored.keys() == trained | buffers
    assert not any(name.startswith("encoder.backbone.") for name in stored)
    for name, tensor in model.state_dict().items():
        if name in stored:
            assert torch.equal(stored[name], tensor)


def test_saving_is_deterministic(model: Model, folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "backbone": model.encoder.backbone,
        "normalization": NORMALIZATION,
        "sections": SECTIONS,
        "prediction": PREDICTION,
        "version": "1.2.3",
    }
    state = adapter_state(model)
    save_adapter(tmp_path / "copy", dict(reversed(state.items())), **options)
    for name in (TENSORS, ADAPTER_CONFIG):
        assert (tmp_path / "copy" / name).read_bytes() == (folder / name).read_bytes()


# ---------------------------------------------------------------- damaged files
def test_missing_files_are_errors(folder: Path, tmp_path: Path) -> None:
    with raises("adapter-missing"):
        load_adapter_config(tmp_path)
    config = load_adapter_config(folder)
    (folder / TENSORS).unlink()
    with raises("adapter-invalid"):
        read_tensors(folder, config)


@pytest.mark.parametrize("text", ["", "{", "\x00\xff", '{"format": 1', "[" * 100_000])
def test_invalid_json_is_an_error(folder: Path, text: str) -> None:
    (folder / ADAPTER_CONFIG).write_text(text, encoding="latin-1")
    with raises("adapter-invalid"):
        load_adapter_config(folder)


TAMPERED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": lambda c: c.pop("format"),
    "no bands": lambda c: c.pop("bands"),
    "no task": lambda c: c.pop("task"),
    "no fingerprint": lambda c: c["base"].pop("fingerprint"),
    "no hash": lambda c: c.pop("hash"),
    "base is a list": lambda c: c.update(base=[]),
    "fingerprint is a number": lambda c: c["base"].update(fingerprint=3),
    "bands is text": lambda c: c.update(bands="abcd"),
    "bands are numbers": lambda c: c.update(bands=[1, 2, 3, 4]),
    "additional band": lambda c: c["bands"].append("B11"),
    "offset is text": lambda c: c["normalization"].update(offset="1234"),
    "offsets are text": lambda c: c["normalization"].update(offset=["a", "b", "c", "d"]),
    "offsets are numbers as text": lambda c: c["normalization"].update(offset=list("1234")),
    "offsets are booleans": lambda c: c["normalization"].update(offset=[True] * 4),
    "offset is not finite": lambda c: c["normalization"].update(offset=[float("nan")] * 4),
    "offset is too large": lambda c: c["normalization"].update(offset=[10**400] * 4),
    "fill is text": lambda c: c["normalization"].update(fill="1234"),
    "fill is too short": lambda c: c["normalization"].update(fill=[0.0]),
    "scale is zero": lambda c: c["normalization"].update(scale=[1, 1, 1, 0]),
    "scale is infinite": lambda c: c["normalization"].update(scale=[1, 1, 1, float("inf")]),
    "normalization is a number": lambda c: c.update(normalization=3),
    "no prediction": lambda c: c.pop("prediction"),
    "no window": lambda c: c["prediction"].pop("window"),
    "unknown setting": lambda c: c["prediction"].update(other=1),
    "window is too large": lambda c: c["prediction"].update(window=10**30),
    "method is half a character": lambda c: c["method"].update(kind="\ud800"),
    "hash is a number": lambda c: c.update(hash=3),
    "method is a list": lambda c: c.update(method=["est"]),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_invalid_adapter_json_is_an_error(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(folder, change)
    with raises("adapter-invalid"):
        load_adapter_config(folder)


def test_adapter_json_that_is_a_list_is_an_error(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_text("[1]")
    with raises("adapter-invalid"):
        load_adapter_config(folder)


def test_other_format_version_is_an_error(folder: Path) -> None:
    edit(folder, lambda c: c.update(format=1))
    with raises(
        "adapter-version", file=folder / ADAPTER_CONFIG, mentions=["found format 1", "expected 2"]
    ):
        load_adapter_config(folder)


def test_tensors_of_another_adapter_are_an_error(folder: Path) -> None:
    config = load_adapter_config(folder)
    state = load_file(folder / TENSORS)
    save_file({name: tensor + 1 for name, tensor in state.items()}, folder / TENSORS)
    mentions = [folder / ADAPTER_CONFIG, config.hash[:12]]
    with raises("adapter-mismatch", file=folder / TENSORS, mentions=mentions):
        read_tensors(folder, config)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_tensors_are_an_error(folder: Path, keep: int) -> None:
    path = folder / TENSORS
    path.write_bytes(path.read_bytes()[:keep])
    with raises("adapter-mismatch"):
        read_tensors(folder, load_adapter_config(folder))
    update_hash(folder)
    with raises("adapter-invalid"):
        read_tensors(folder, load_adapter_config(folder))


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickle_is_rejected_and_not_executed(folder: Path, tmp_path: Path, kind: str) -> None:
    trap = {"a": Trap(tmp_path / "sprung")}
    if kind == "pickle":
        (folder / TENSORS).write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, folder / TENSORS)
    update_hash(folder)
    with raises("adapter-invalid"):
        read_tensors(folder, load_adapter_config(folder))
    assert not (tmp_path / "sprung").exists()


# ---------------------------------------------------------------- mismatched models
def test_another_base_model_is_an_error(
    folder: Path, model: Model, make_backbone: MakeBackbone
) -> None:
    config = load_adapter_config(folder)
    check_base_model(model.encoder.backbone, config, folder)
    other = make_backbone("vit")
    fingerprints = [config.base["fingerprint"][:12], other.fingerprint[:12]]
    mentions = [folder, "timm/test_resnet", "timm/test_vit", *fingerprints]
    with raises("adapter-base", file=folder, mentions=mentions):
        check_base_model(other, config, folder)


def test_other_weights_of_the_base_model_are_an_error(
    folder: Path, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    state = make_backbone("resnet", bands=3).model.state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    other = make_backbone("resnet", weights=tmp_path / "other.safetensors")
    with raises("adapter-base", file=folder, mentions=["other.safetensors"]):
        check_base_model(other, load_adapter_config(folder), folder)


def test_merged_method_cannot_be_saved(make_backbone: MakeBackbone) -> None:
    encoder = Lora().attach(make_backbone("vit"))
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 2, LinearOptions()))
    assert any("lora" in name for name in adapter_state(model))
    encoder.merge()
    with raises("adapter-merged"):
        adapter_state(model)


def test_mismatched_tensors_are_named_and_not_loaded(model: Model) -> None:
    state = adapter_state(model)
    name = "decoder.projections.0.weight"
    assert name in state
    before = {n: t.clone() for n, t in model.state_dict().items()}
    with raises("adapter-mismatch", file="a run", mentions=[f"missing {name}"]):
        load_adapter_state(model, {n: t + 1 for n, t in state.items() if n != name}, "a run")
    with raises("adapter-mismatch", file="a run", mentions=["unknown decoder.other"]):
        load_adapter_state(model, {**state, "decoder.other": torch.zeros(1)}, "a run")
    backbone = next(n for n in model.state_dict() if n.startswith("encoder.backbone."))
    with raises("adapter-mismatch", file="a run", mentions=[f"unknown {backbone}"]):
        load_adapter_state(model, {**state, backbone: before[backbone] + 1}, "a run")
    with raises("adapter-mismatch", file="a run", mentions=[f"of another shape {name}"]):
        load_adapter_state(model, {**state, name: torch.zeros(7)}, "a run")
    for n, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[n])


def test_saving_makes_no_second_copy_of_the_tensors(tmp_path: Path) -> None:
    state = {f"{i}": torch.full((2**22,), float(i)) for i in range(4)}  # 16 MiB each
    taken = peak_growth(lambda: save_tensors(tmp_path / TENSORS, state))
    assert taken < 8 * 2**20
    torch.testing.assert_close(load_file(tmp_path / TENSORS), state)


def test_an_adapter_is_as_readable_as_other_files(tmp_path: Path) -> None:
    """Not by its owner alone, as safetensors writes it: it is there to be handed on."""
    other = tmp_path / "other"
    other.touch()
    save_tensors(tmp_path / TENSORS, {"a": torch.zeros(1)})
    assert (tmp_path / TENSORS).stat().st_mode == other.stat().st_mode
