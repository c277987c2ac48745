"""The contract of a method: every method on every class of backbone."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from geotune import Frozen, Full, Lora, attach, registry
from geotune.adapter_config import PredictionSettings, load_adapter_config
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
from geotune.methods.core.encoder import Encoder
from geotune.model import Model
from geotune.types import Normalization
from helpers.backbone_families import FAMILIES
from helpers.errors import raises
from helpers.method_cases import METHODS

MakeBackbone = Callable[..., Backbone]


STATISTICS = {"running_mean", "running_var", "num_batches_tracked"}

every_method = pytest.mark.parametrize("method", METHODS)
with_and_without_stem = pytest.mark.parametrize(
    ("family", "stem"), [*((family, 4) for family in FAMILIES), ("vit", 0)]
)
"""A stem is a part of its own: that an encoder can do without is shown on one backbone."""


def methods_with(field: str) -> pytest.MarkDecorator:
    """Methods whose `Case` has this field set."""
    return pytest.mark.parametrize("method", [n for n, c in METHODS.items() if getattr(c, field)])


BuildEncoder = Callable[..., Encoder]


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 21, 34, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def backbone_of(make_backbone: MakeBackbone) -> MakeBackbone:
    """A small backbone as if it were trained: no layer is (nearly) zero and blocks gradients."""
    built: dict[str, Backbone] = {}

    def backbone(family: str) -> Backbone:
        if family not in built:
            built[family] = make_backbone(family)
            generator = torch.Generator().manual_seed(0)
            for parameter in built[family].parameters():
                if parameter.abs().max() < 1e-3:
                    parameter.data += torch.rand(parameter.shape, generator=generator)
        return copy.deepcopy(built[family])

    return backbone


@pytest.fixture(scope="session")
def build(backbone_of: MakeBackbone) -> BuildEncoder:
    """Builds an encoder; skips unsupported pairs, which have a test of their own."""

    def encoder(family: str, method: str, stem_width: int = 0, seed: int = 0) -> Encoder:
        case = METHODS[method]
        if family in case.unsupported:
            pytest.skip(f"{method} does not fit {family}")
        backbone = backbone_of(family)
        torch.manual_seed(seed)
        built = attach(backbone, case.method.model_copy(update={"stem_width": stem_width}))
        if built.reader.calibration_samples:
            built.calibrate([{"images": images(seed=5)}])
        return built

    return encoder


def backward(encoder: Encoder, seed: int) -> None:
    """One forward and backward pass with a random loss."""
    encoder.zero_grad(set_to_none=True)
    maps = encoder(images(seed)).maps
    generator = torch.Generator().manual_seed(seed)
    total = sum((m * torch.randn(m.shape, generator=generator)).mean() for m in maps)
    assert isinstance(total, Tensor)
    if total.requires_grad:
        total.backward()


def step(encoder: Encoder, lr: float = 0.1) -> None:
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.grad is not None:
                parameter -= lr * parameter.grad


def train(encoder: Encoder, steps: int) -> None:
    encoder.train()
    for seed in range(steps):
        backward(encoder, seed)
        step(encoder)


def test_every_registered_method_has_a_case() -> None:
    tested = {type(case.method).__name__ for case in METHODS.values()}
    assert tested == {m.implementation.partition(":")[2] for m in registry.METHODS.values()}


def test_docs_page_lists_every_registered_method() -> None:
    page = Path(__file__).parents[2] / "docs" / "reference" / "methods.md"
    kinds = re.findall(r"^\| `(\w+)` \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(kinds) == sorted(registry.METHODS)


@pytest.mark.parametrize(
    ("method", "family"),
    [(name, family) for name, c in METHODS.items() for family in c.unsupported],
)
def test_unsupported_backbone_raises(backbone_of: MakeBackbone, method: str, family: str) -> None:
    case = METHODS[method]
    backbone = backbone_of(family)
    key = case.unsupported[family]
    with raises("method-unsupported", key=key, mentions=[backbone.name]):
        attach(backbone, case.method)
    assert case.method.fits != "every backbone"


@every_method
@with_and_without_stem
def test_maps_match_declared_taps(build: BuildEncoder, family: str, method: str, stem: int) -> None:
    encoder = build(family, method, stem).eval()
    with torch.no_grad():
        features = encoder(images())
    assert len({tap.name for tap in encoder.taps}) == len(encoder.taps)
    for tap, feature in zip(encoder.taps, features.maps, strict=True):
        rows, columns = (-(-side // tap.stride) for side in features.image_size)
        assert feature.shape == (2, tap.channels, rows, columns), tap
    strides = [tap.stride for tap in encoder.taps if not tap.name.startswith("stem")]
    assert len(set(strides)) == 1 or strides == sorted(set(strides))
    names = [tap.name for tap in encoder.taps if tap.name.startswith("stem")]
    assert names == (["stem1", "stem2", "stem4"] if stem else [])
    assert encoder.backbone_frozen == METHODS[method].backbone_frozen


@methods_with("starts_at_frozen")
def test_initial_maps_equal_frozen(build: BuildEncoder, family: str, method: str) -> None:
    encoder = build(family, method).eval()
    frozen = build(family, "frozen").eval()
    assert encoder.taps == frozen.taps
    with torch.no_grad():
        ours, theirs = encoder(images()).maps, frozen(images()).maps
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@every_method
@with_and_without_stem
def test_only_declared_parameters_train_and_the_rest_is_bit_identical(
    build: BuildEncoder, family: str, method: str, stem: int
) -> None:
    encoder = build(family, method, stem)
    case = METHODS[method]
    names = encoder.trainable_names()
    before = copy.deepcopy(encoder.state_dict())
    train(encoder, case.warmup_steps)
    backward(encoder, seed=9)
    reached = {n: bool(p.grad.any()) for n, p in encoder.named_parameters() if p.grad is not None}
    assert reached == dict.fromkeys(names, True)
    inside = [name for name in names if name.startswith("backbone.")]
    assert all(re.search(case.trainable_pattern, name) for name in inside)
    assert not ((case.backbone_frozen or case.trains_outside_only) and inside)
    assert any(not name.startswith("stem.") for name in names) == (method != "frozen")
    assert any(name.startswith("stem.") for name in names) == bool(stem)

    train(encoder, 3)
    after = encoder.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    statistics = {name for name in after if name.rsplit(".", 1)[-1] in STATISTICS}
    moving = {name for name in statistics if method == "full" or not name.startswith("backbone.")}
    assert changed <= moving.union(names)
    assert changed & statistics == moving
    assert bool(changed.intersection(names)) == bool(names)


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"full"}))
def test_frozen_backbone_is_in_evaluation_mode_from_the_start(
    build: BuildEncoder, method: str
) -> None:
    encoder = build("resnet", method, 4)
    before = copy.deepcopy(encoder.backbone.state_dict())
    encoder(images())
    for name, tensor in encoder.backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@methods_with("backbone_frozen")
def test_features_of_a_frozen_backbone_carry_no_graph(
    build: BuildEncoder, family: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = build(family, method, 0).train()
    step, seen = encoder.reader.step, []

    def watch(state: Any, index: int, feature: Tensor, activations: Any) -> Any:
        seen.append(feature)
        return step(state, index, feature, activations)

    monkeypatch.setattr(encoder.reader, "step", watch)
    maps = encoder(images().requires_grad_()).maps
    assert len(seen) == len(encoder.reader.out_indices)
    assert not any(feature.requires_grad for feature in seen)
    assert all(m.requires_grad == (method != "frozen") for m in maps)
    with torch.no_grad():
        assert not any(m.requires_grad for m in encoder(images()).maps)


# ---------------------------------------------------------------- saving
def model_of(build: BuildEncoder, family: str, method: str, seed: int) -> Model:
    encoder = build(family, method, stem_width=4, seed=seed)
    bands = encoder.backbone.bands
    normalization = Normalization(bands, (0.1,) * len(bands), (2.0,) * len(bands))
    return Model(normalization, encoder, Linear(encoder.taps, 3, LinearOptions()))


@every_method
def test_saved_adapter_reproduces_outputs_bit_by_bit(
    build: BuildEncoder, family: str, method: str, tmp_path: Path
) -> None:
    model = model_of(build, family, method, seed=0)
    train(model.encoder, 2)
    state = adapter_state(model)
    sections = {name: {"kind": name} for name in ("backbone", "method", "decoder", "task")}
    save_adapter(
        tmp_path,
        state,
        backbone=model.encoder.backbone,
        normalization=Normalization(("a",), (0.0,), (1.0,)),
        sections=sections,
        prediction=PredictionSettings(window=64),
        version="0",
    )
    other = model_of(build, family, method, seed=1)
    with torch.no_grad():
        expected = model.eval()(images())
        assert not torch.equal(other.eval()(images()), expected)
    config = load_adapter_config(tmp_path)
    check_base_model(other.encoder.backbone, config, tmp_path)
    tensors = read_tensors(tmp_path, config)
    load_adapter_state(other, tensors, "adapter")
    with torch.no_grad():
        assert torch.equal(other.eval()(images()), expected)

    inside = [name for name in tensors if name.startswith("encoder.backbone.")]
    assert bool(inside) != (METHODS[method].backbone_frozen or METHODS[method].trains_outside_only)
    assert all(re.search(METHODS[method].trainable_pattern, name) for name in inside)
    moving = {name for name, _ in model.named_buffers() if "running" in name}
    if method != "full":
        moving = {name for name in moving if not name.startswith("encoder.backbone.")}
    assert {name for name in tensors if "running" in name} == moving


# ---------------------------------------------------------------- merging
def randomise_updates(encoder: Encoder) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@methods_with("mergeable")
def test_merged_equals_unmerged(
    build: BuildEncoder, backbone_of: MakeBackbone, family: str, method: str
) -> None:
    encoder = build(family, method).eval()
    plain = backbone_of(family)
    with torch.no_grad():
        start = encoder(images()).maps
        randomise_updates(encoder)
        unmerged = encoder(images()).maps
        encoder.merge()
        merged = encoder(images()).maps
    assert not torch.allclose(unmerged[-1], start[-1], atol=1e-3), "the updates change nothing"
    torch.testing.assert_close(merged, unmerged, rtol=1e-5, atol=1e-5)
    assert encoder.backbone.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in encoder.backbone.modules()] == [type(m) for m in plain.modules()]
    assert encoder.backbone.fingerprint != plain.fingerprint, "an adapter would fit the other one"
    with raises("merge-unsupported"):
        encoder.merge()


def test_merging_a_copy_leaves_the_original_unmerged(build: BuildEncoder) -> None:
    encoder = build("vit", "lora", 0).eval()
    randomise_updates(encoder)
    twin = copy.deepcopy(encoder)
    twin.merge()
    assert any(".lora_" in name for name in encoder.state_dict())
    assert not any(".lora_" in name for name in twin.state_dict())


@pytest.mark.parametrize("method", [name for name, case in METHODS.items() if not case.mergeable])
def test_methods_without_merging_raise(build: BuildEncoder, method: str) -> None:
    with raises("merge-unsupported", mentions=["lora"]):
        build("vit", method, 0).merge()


def test_full_raises_for_a_backbone_frozen_by_another_method(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("vit")
    attach(backbone, Frozen(stem_width=0))
    with raises("backbone-already-adapted", mentions=["timm/test_vit"]):
        attach(backbone, Full(stem_width=0))


def test_only_inserted_modules_follow_the_training_mode(make_backbone: MakeBackbone) -> None:
    encoder = attach(make_backbone("vit"), Lora(rank=2, dropout=0.5, stem_width=4)).train()
    plain = dict(make_backbone("vit").model.named_modules())
    training = {name: m for name, m in encoder.backbone.model.named_modules() if m.training}
    assert training
    assert not any(type(module) is type(plain.get(name)) for name, module in training.items())
    assert not any("base_layer" in name for name in training)
    assert any(isinstance(m, nn.Dropout) and m.training for m in encoder.backbone.modules())
    encoder.eval()
    assert not any(m.training for m in encoder.modules())
