"""The adapter's two files: what they hold, and what is refused."""

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
from geotune.adapter_config import ADAPTER_CONFIG, TENSORS, AdapterConfig, load_adapter_config
from geotune.adapter_io import (
    adapter_state,
    check_base_model,
    load_adapter_state,
    read_tensors,
    save_adapter,
)
from geotune.backbones.base import Backbone
from geotune.config.decoder_options import LinearOptions
from geotune.decoders.linear import Linear
from geotune.model import Model
from geotune.types import Normalization
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

BANDS = ("B02", "B03", "B04", "B08")
NORMALIZATION = Normalization(BANDS, (0.0, 1.0, 2.0, 3.0), (10.0, 20.0, 30.0, 40.0))
SECTIONS: dict[str, Any] = {
    "backbone": {"name": "timm/test_resnet", "pretrained": False},
    "method": {"kind": "est"},
    "decoder": {"kind": "linear"},
    "task": {"kind": "segment", "classes": ["land", "water"]},
}


@pytest.fixture(scope="module")
def saved(
    make_backbone: MakeBackbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Model, Path]:
    """A model and the folder of its adapter."""
    encoder = Est(reduction=8, min_width=4, stem_width=2).attach(make_backbone("resnet"))
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 2, LinearOptions()))
    folder = tmp_path_factory.mktemp("adapter") / "run"
    size = save_adapter(
        folder,
        adapter_state(model),
        backbone=encoder.backbone,
        normalization=NORMALIZATION,
        sections=SECTIONS,
        version="1.2.3",
    )
    assert size == (folder / TENSORS).stat().st_size
    return model, folder


@pytest.fixture
def model(saved: tuple[Model, Path]) -> Model:
    return copy.deepcopy(saved[0])


@pytest.fixture
def folder(saved: tuple[Model, Path], tmp_path: Path) -> Path:
    """A folder with a saved adapter, to be damaged."""
    return Path(shutil.copytree(saved[1], tmp_path / "run"))


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / ADAPTER_CONFIG).read_text())
    change(card)
    (folder / ADAPTER_CONFIG).write_text(json.dumps(card))


def rehash(folder: Path) -> None:
    """Make the card say that the tensors' file is its own."""
    digest = hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest()
    edit(folder, lambda card: card.update(hash=digest))


def test_the_card_says_what_it_belongs_to(model: Model, folder: Path) -> None:
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
        geotune="1.2.3",
        hash=hashlib.sha256((folder / TENSORS).read_bytes()).hexdigest(),
    )
    assert sorted(os.listdir(folder)) == [ADAPTER_CONFIG, TENSORS]


def test_it_holds_what_trains_and_moves_and_nothing_else(model: Model, folder: Path) -> None:
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    moving = {
        f"encoder.stem.{name}"
        for name, _ in model.encoder.stem.named_buffers()  # type: ignore[union-attr]
    }
    assert moving
    stored = load_file(folder / TENSORS)
    assert stored.keys() == trained | moving
    assert not any(name.startswith("encoder.backbone.") for name in stored)
    for name, tensor in model.state_dict().items():
        if name in stored:
            assert torch.equal(stored[name], tensor)


def test_the_same_adapter_is_the_same_file(model: Model, folder: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "backbone": model.encoder.backbone,
        "normalization": NORMALIZATION,
        "sections": SECTIONS,
        "version": "1.2.3",
    }
    state = adapter_state(model)
    save_adapter(tmp_path / "again", dict(reversed(state.items())), **options)
    for name in (TENSORS, ADAPTER_CONFIG):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


# ---------------------------------------------------------------- damaged files
def test_missing_files_are_named(folder: Path, tmp_path: Path) -> None:
    with raises("adapter-missing"):
        load_adapter_config(tmp_path)
    card = load_adapter_config(folder)
    (folder / TENSORS).unlink()
    with raises("adapter-invalid"):
        read_tensors(folder, card)


@pytest.mark.parametrize("text", ["", "{", "\x00\xff", '{"format": 1', "[" * 100_000])
def test_a_card_that_is_no_json_is_named(folder: Path, text: str) -> None:
    (folder / ADAPTER_CONFIG).write_text(text, encoding="latin-1")
    with raises("adapter-invalid"):
        load_adapter_config(folder)


TAMPERED: dict[str, Callable[[dict[str, Any]], object]] = {
    "no format": lambda card: card.pop("format"),
    "no bands": lambda card: card.pop("bands"),
    "no task": lambda card: card.pop("task"),
    "no fingerprint": lambda card: card["base"].pop("fingerprint"),
    "no hash": lambda card: card.pop("hash"),
    "base a list": lambda card: card.update(base=[]),
    "fingerprint a number": lambda card: card["base"].update(fingerprint=3),
    "bands a text": lambda card: card.update(bands="abcd"),
    "bands numbers": lambda card: card.update(bands=[1, 2, 3, 4]),
    "one band more": lambda card: card["bands"].append("B11"),
    "offset a text": lambda card: card["normalization"].update(offset="1234"),
    "offset texts": lambda card: card["normalization"].update(offset=["a", "b", "c", "d"]),
    "offset numbers as texts": lambda card: card["normalization"].update(offset=list("1234")),
    "offset truths": lambda card: card["normalization"].update(offset=[True] * 4),
    "offset not finite": lambda card: card["normalization"].update(offset=[float("nan")] * 4),
    "offset too large": lambda card: card["normalization"].update(offset=[10**400] * 4),
    "scale zero": lambda card: card["normalization"].update(scale=[1, 1, 1, 0]),
    "scale infinite": lambda card: card["normalization"].update(scale=[1, 1, 1, float("inf")]),
    "normalization a number": lambda card: card.update(normalization=3),
    "hash a number": lambda card: card.update(hash=3),
    "method a list": lambda card: card.update(method=["est"]),
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED)
def test_a_card_of_another_shape_is_refused(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    edit(folder, change)
    with raises("adapter-invalid"):
        load_adapter_config(folder)


def test_a_card_that_is_a_list_is_refused(folder: Path) -> None:
    (folder / ADAPTER_CONFIG).write_text("[1]")
    with raises("adapter-invalid"):
        load_adapter_config(folder)


def test_another_format_says_so(folder: Path) -> None:
    edit(folder, lambda card: card.update(format=2))
    with raises(
        "adapter-version", file=folder / ADAPTER_CONFIG, mentions=["found format 2", "expected 1"]
    ):
        load_adapter_config(folder)


def test_tensors_of_another_adapter_are_refused(folder: Path) -> None:
    card = load_adapter_config(folder)
    state = load_file(folder / TENSORS)
    save_file({name: tensor + 1 for name, tensor in state.items()}, folder / TENSORS)
    mentions = [folder / ADAPTER_CONFIG, card.hash[:12]]
    with raises("adapter-mismatch", file=folder / TENSORS, mentions=mentions):
        read_tensors(folder, card)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_truncated_tensors_are_refused(folder: Path, keep: int) -> None:
    path = folder / TENSORS
    path.write_bytes(path.read_bytes()[:keep])
    with raises("adapter-mismatch"):
        read_tensors(folder, load_adapter_config(folder))
    rehash(folder)
    with raises("adapter-invalid"):
        read_tensors(folder, load_adapter_config(folder))


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_a_pickle_by_another_name_is_refused_and_not_run(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    trap = {"a": Trap(tmp_path / "sprung")}
    if kind == "pickle":
        (folder / TENSORS).write_bytes(pickle.dumps(trap))
    else:
        torch.save(trap, folder / TENSORS)
    rehash(folder)
    with raises("adapter-invalid"):
        read_tensors(folder, load_adapter_config(folder))
    assert not (tmp_path / "sprung").exists()


# ---------------------------------------------------------------- what does not fit
def test_another_base_is_refused_by_name(
    folder: Path, model: Model, make_backbone: MakeBackbone
) -> None:
    card = load_adapter_config(folder)
    check_base_model(model.encoder.backbone, card, folder)
    other = make_backbone("vit")
    fingerprints = [card.base["fingerprint"][:12], other.fingerprint[:12]]
    mentions = [folder, "timm/test_resnet", "timm/test_vit", *fingerprints]
    with raises("adapter-base", file=folder, mentions=mentions):
        check_base_model(other, card, folder)


def test_other_weights_of_the_same_model_are_refused(
    folder: Path, make_backbone: MakeBackbone, tmp_path: Path
) -> None:
    state = make_backbone("resnet", bands=3).model.state_dict()
    state["layer1.0.conv1.weight"][0, 0, 0, 0] += 1e-6
    save_file(state, tmp_path / "other.safetensors")
    other = make_backbone("resnet", weights=tmp_path / "other.safetensors")
    with raises("adapter-base", file=folder, mentions=["other.safetensors"]):
        check_base_model(other, load_adapter_config(folder), folder)


def test_what_was_merged_is_in_no_adapter(make_backbone: MakeBackbone) -> None:
    encoder = Lora().attach(make_backbone("vit"))
    model = Model(NORMALIZATION, encoder, Linear(encoder.taps, 2, LinearOptions()))
    assert any("lora" in name for name in adapter_state(model))
    encoder.merge()
    with raises("adapter-merged"):
        adapter_state(model)


def test_tensors_that_do_not_fit_are_named(model: Model) -> None:
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
        assert torch.equal(tensor, before[n]), "nothing is loaded from what does not fit"
