"""HF peft's tuners on the small ViT; the contract tests run four of them on every backbone."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geotune.adapter_io import adapter_state, load_adapter_state, save_tensors
from geotune.backbones.base import Backbone
from geotune.config.decoder_options import LinearOptions
from geotune.config.method_options import PeftOptions
from geotune.decoders.linear import Linear
from geotune.methods.core.encoder import Encoder
from geotune.methods.hf_peft import TUNERS, Peft
from geotune.methods.selective import Frozen
from geotune.model import Model
from geotune.types import Normalization
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]

OPTIONS: dict[str, dict[str, Any]] = {
    "fourierft": {"n_frequency": 40},
    "waveft": {"n_frequency": 40},
}
STARTS_UP_TO_ROUNDING = {"deft", "hra", "olora", "pissa"}
STARTS_NEAR = {"unilora", "vblora"}
"""Tuners that do not start exactly at the frozen features."""

every_tuner = pytest.mark.parametrize("tuner", TUNERS)


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 4, 32, 48, generator=torch.Generator().manual_seed(seed))


def small(tuner: str, **options: Any) -> Peft:
    """The tuner with options for the small ViT."""
    rank = 4 if TUNERS[tuner].rank else None
    return Peft(
        **{"tuner": tuner, "rank": rank, "options": OPTIONS.get(tuner, {}), "stem_width": 0}
        | options
    )


@pytest.fixture
def vit(make_backbone: MakeBackbone) -> Callable[[], Backbone]:
    """Builds the small ViT with nonzero biases, as if it were trained."""

    def backbone() -> Backbone:
        made = make_backbone("vit")
        generator = torch.Generator().manual_seed(0)
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        return made

    return backbone


@pytest.fixture
def build(vit: Callable[[], Backbone]) -> Callable[..., Encoder]:
    def encoder(tuner: str, seed: int = 0, **options: Any) -> Encoder:
        backbone = vit()
        torch.manual_seed(seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # boft looks for a compiler
            return small(tuner, **options).attach(backbone).eval()

    return encoder


def randomise(encoder: Encoder) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def last_map(encoder: Encoder) -> Tensor:
    with torch.no_grad():
        return encoder(images()).maps[-1]


def layers_of(encoder: Encoder) -> dict[str, Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = encoder.backbone.model.named_modules()
    return {name: module for name, module in modules if isinstance(module, BaseTunerLayer)}


# ---------------------------------------------------------------- every tuner
def test_options_list_every_tuner() -> None:
    assert list(get_args(Peft.model_fields["tuner"].annotation)) == list(TUNERS)
    section = PeftOptions(
        kind="peft", tuner="ia3", targets=["fc2"], options={"feedforward_modules": ["fc2"]}
    )
    assert section.options == {"feedforward_modules": ["fc2"]}


@every_tuner
def test_initial_map_equals_frozen(
    build: Callable[..., Encoder], vit: Callable[[], Backbone], tuner: str
) -> None:
    frozen = last_map(Frozen(stem_width=0).attach(vit()).eval())
    start = last_map(build(tuner))
    difference = float((start - frozen).abs().max())
    if tuner in STARTS_NEAR:
        assert 1e-6 < difference < 0.02
    elif tuner in STARTS_UP_TO_ROUNDING:
        assert 0 < difference < 1e-5
    else:
        assert difference == 0


@every_tuner
def test_only_tuner_parameters_train(build: Callable[..., Encoder], tuner: str) -> None:
    encoder = build(tuner).train()
    layers = layers_of(encoder)
    assert list(layers) == [
        f"blocks.{i}.{layer}"
        for i in range(6)
        for layer in ("attn.qkv.q", "attn.qkv.v", "mlp.fc1", "mlp.fc2")
    ]
    names = encoder.trainable_names()
    assert names
    assert not any("base_layer" in name for name in names)
    before = {name: tensor.clone() for name, tensor in encoder.state_dict(keep_vars=True).items()}
    trained = [p for p in encoder.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    reached = set()
    for seed in range(3):
        optimizer.zero_grad()
        maps = encoder(images(seed)).maps
        sum((m * torch.randn(m.shape)).mean() for m in maps).backward()
        reached |= {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert reached == set(names)
    trains = {id(parameter) for parameter in trained}
    for name, tensor in encoder.state_dict(keep_vars=True).items():
        assert id(tensor) in trains or torch.equal(tensor, before[name]), name


@every_tuner
def test_only_inserted_modules_follow_the_training_mode(
    build: Callable[..., Encoder], tuner: str
) -> None:
    encoder = build(tuner).train()
    model = encoder.backbone.model
    training = {name for name, module in model.named_modules() if module.training}
    layers = set(layers_of(encoder))
    assert layers <= training
    assert all(any(name.startswith(layer) for layer in layers) for name in training)
    assert not any("base_layer" in name for name in training)
    assert not any(module.training for module in encoder.eval().modules())


@every_tuner
def test_saved_adapter_reproduces_outputs_bit_by_bit(
    build: Callable[..., Encoder], tuner: str, tmp_path: Path
) -> None:
    def model(seed: int) -> Model:
        encoder = build(tuner, seed)
        bands = encoder.backbone.bands
        normalization = Normalization(bands, (0.0,) * len(bands), (1.0,) * len(bands))
        return Model(normalization, encoder, Linear(encoder.taps, 2, LinearOptions())).eval()

    one, two = model(0), model(1)
    randomise(one.encoder)
    saved = tmp_path / "adapter.safetensors"
    save_tensors(saved, adapter_state(one))
    with torch.no_grad():
        expected = one(images())
        assert not torch.equal(two(images()), expected)
        load_adapter_state(two, load_file(saved), "adapter")
        assert torch.equal(two(images()), expected)
        assert torch.equal(copy.deepcopy(two)(images()), expected)
    backbone = sum(p.numel() for p in one.encoder.backbone.parameters() if not p.requires_grad)
    if tuner != "vblora":  # its vector bank does not shrink with the model
        assert saved.stat().st_size < 4 * backbone / 2


@every_tuner
def test_merged_equals_unmerged_or_merging_raises(
    build: Callable[..., Encoder], make_backbone: MakeBackbone, tuner: str
) -> None:
    encoder = build(tuner)
    plain = make_backbone("vit")
    start = last_map(encoder)
    randomise(encoder)
    unmerged = last_map(encoder)
    assert not torch.allclose(unmerged, start, atol=1e-3)
    if not TUNERS[tuner].mergeable:
        with raises("merge-unsupported"):
            encoder.merge()
        return
    encoder.merge()
    torch.testing.assert_close(last_map(encoder), unmerged, rtol=1e-5, atol=1e-5)
    assert encoder.backbone.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in encoder.backbone.modules()] == [type(m) for m in plain.modules()]


@every_tuner
def test_convolutions_are_adapted_or_raise(make_backbone: MakeBackbone, tuner: str) -> None:
    backbone = make_backbone("resnet")
    if TUNERS[tuner].convolutions:
        small(tuner).attach(backbone)
        return
    with raises("method-unsupported", mentions=[f"peft {tuner}", "timm/test_resnet"]):
        small(tuner).attach(backbone)
    with raises("method-option-invalid", key="method.targets", mentions=["layer1.0.conv1"]):
        small(tuner, targets=["conv1"]).attach(backbone)


# ---------------------------------------------------------------- formulas
def test_dora_matches_its_formula(build: Callable[..., Encoder]) -> None:
    encoder = build("dora", options={"lora_alpha": 6})
    randomise(encoder)
    layer = layers_of(encoder)["blocks.0.mlp.fc1"]
    a, b = (layer.get_parameter(f"lora_{part}.default.weight") for part in "AB")
    magnitude = layer.get_parameter("lora_magnitude_vector.default.weight")
    base = layer.base_layer
    x = torch.randn(5, 64)
    with torch.no_grad():
        direction = base.weight + 6 / 4 * b @ a
        weight = magnitude[:, None] * direction / direction.norm(dim=1, keepdim=True)
        torch.testing.assert_close(layer(x), x @ weight.T + base.bias)


def test_ia3_scales_outputs_and_the_input_of_the_second_mlp_layer(
    build: Callable[..., Encoder],
) -> None:
    encoder = build("ia3")
    randomise(encoder)
    for name, width, feedforward in (("mlp.fc1", 64, False), ("mlp.fc2", 192, True)):
        layer = layers_of(encoder)[f"blocks.0.{name}"]
        scale = layer.get_parameter("ia3_l.default").flatten()
        x = torch.randn(5, width)
        with torch.no_grad():
            base = layer.base_layer
            expected = base(x * scale) if feedforward else base(x) * scale
            torch.testing.assert_close(layer(x), expected)


def test_lily_shares_its_second_factor_among_layers_of_one_name(
    build: Callable[..., Encoder],
) -> None:
    layers = layers_of(build("lily"))
    first, second, other = (
        layers[name].get_submodule("lily_B.default")
        for name in ("blocks.0.mlp.fc1", "blocks.1.mlp.fc1", "blocks.0.mlp.fc2")
    )
    assert first is second
    assert first is not other


def test_block_sizes_divide_the_layer_widths(build: Callable[..., Encoder]) -> None:
    assert layers_of(build("c3a"))["blocks.0.attn.qkv.q"].block_size == {"default": 64}
    assert layers_of(build("oft"))["blocks.0.attn.qkv.q"].oft_block_size == {"default": 32}
    given = build("oft", options={"oft_block_size": 4})
    assert layers_of(given)["blocks.0.attn.qkv.q"].oft_block_size == {"default": 4}


def test_default_ranks_are_those_of_peft_or_16(make_backbone: MakeBackbone) -> None:
    def rank(tuner: str, **options: Any) -> int:
        encoder = Peft(tuner=tuner, stem_width=0, targets=["fc1"], **options).attach(
            make_backbone("vit")
        )
        return int(next(iter(layers_of(encoder).values())).r["default"])

    assert rank("rslora") == 16
    assert rank("loha") == 8
    assert rank("loha", rank=3) == 3
    assert rank("vera") == 256


# ---------------------------------------------------------------- invalid input
INVALID, UNFIT = "recipe-invalid", "method-option-invalid"


@pytest.mark.parametrize(
    ("options", "code", "key", "mentions"),
    [
        ({"tuner": "lora2"}, INVALID, "tuner", ["lora2", "lora", "dora"]),
        ({"rank": 0}, INVALID, "rank", [0]),
        ({"rank": 65}, UNFIT, "rank", ["blocks.0.attn.qkv", 64]),
        ({"tuner": "ia3", "rank": 2}, UNFIT, "rank", ["ia3", 2]),
        ({"tuner": "hra", "rank": 3}, UNFIT, "options", ["peft hra", "r is odd"]),
        (
            {"options": {"lora_droput": 0.1}},
            UNFIT,
            "options.lora_droput",
            ["dora", "did you mean lora_dropout"],
        ),
        (
            {"options": {"block": 1}, "tuner": "ia3"},
            UNFIT,
            "options.block",
            ["ia3", "exclude_modules"],
        ),
        ({"options": {"r": 4}}, UNFIT, "options.r", ["method.rank"]),
        (
            {"options": {"target_modules": ["x"]}},
            UNFIT,
            "options.target_modules",
            ["method.targets"],
        ),
        (
            {"options": {"modules_to_save": ["x"]}},
            UNFIT,
            "options.modules_to_save",
            ["method.kind=partial"],
        ),
        ({"options": {"eva_config": {}}}, UNFIT, "options.eva_config", []),
        (
            {"options": {"init_lora_weights": "eva"}},
            UNFIT,
            "options.init_lora_weights",
            ["eva", "pissa or olora"],
        ),
        ({"options": {"init_lora_weights": "evaa"}}, UNFIT, "options", ["peft dora", "evaa"]),
        ({"tuner": "adalora", "options": {"target_r": 2}}, UNFIT, "options.target_r", []),
        ({"tuner": "oft", "options": {"r": 2}}, UNFIT, "options.r", ["oft_block_size"]),
        (
            {"tuner": "oft", "options": {"oft_block_size": 60}},
            UNFIT,
            "options",
            ["peft oft", "oft_block_size", 60],
        ),
        (
            {"tuner": "c3a", "options": {"block_size": 48}},
            UNFIT,
            "options",
            ["peft c3a", "factor of the input size"],
        ),
        ({"tuner": "road", "options": {"variant": "x"}}, UNFIT, "options", ["peft road", "x"]),
        ({"tuner": "shira", "rank": 60}, UNFIT, "options", ["peft shira", "rank 60"]),
        ({"targets": ["query"]}, UNFIT, "targets", ["query", "fc1, fc2, proj, qkv"]),
    ],
)
def test_invalid_options_raise_and_change_nothing(
    make_backbone: MakeBackbone,
    options: dict[str, Any],
    code: str,
    key: str,
    mentions: list[object],
) -> None:
    backbone = make_backbone("vit")
    before = copy.deepcopy(backbone.state_dict())
    with raises(code, key=f"method.{key}", mentions=mentions):
        Peft(**{"stem_width": 0} | options).attach(backbone)
    assert backbone.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[n]) for n, tensor in backbone.state_dict().items())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_second_tuner_raises(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("vit")
    Peft(tuner="ia3", stem_width=0).attach(backbone)
    with raises("backbone-already-adapted", mentions=["peft dora", "timm/test_vit"]):
        Peft(tuner="dora", rank=2, stem_width=0).attach(backbone)


def test_failed_merge_changes_nothing(make_backbone: MakeBackbone) -> None:
    """Swin v2's qkv layers have no bias of their own to merge beft's into."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encoder = Peft(tuner="beft", stem_width=0).attach(make_backbone("swinv2"))
    before = copy.deepcopy(encoder.state_dict())
    with raises("merge-unsupported", mentions=["bias"]):
        encoder.merge()
    assert encoder.state_dict().keys() == before.keys()
    assert all(torch.equal(tensor, before[n]) for n, tensor in encoder.state_dict().items())


def test_failing_forward_pass_raises(make_backbone: MakeBackbone) -> None:
    """peft's oft mistakes the maps in ConvNeXt's linear layers for inputs of convolutions."""
    with raises("method-unsupported", mentions=["peft oft", "convnext"]):
        Peft(tuner="oft", stem_width=0).attach(make_backbone("convnext"))


def test_layers_that_are_not_called_raise(make_backbone: MakeBackbone) -> None:
    """unilora trains one vector for all layers: its gradient cannot show that some are dead."""
    backbone = make_backbone("timm/small_beit")
    for module in backbone.modules():
        if isinstance(module, nn.Module) and hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = False  # type: ignore[assignment]
    mentions = ["peft unilora", "2 layers", "blocks.0.attn.qkv"]
    with raises("method-layers-dead", mentions=mentions):
        Peft(tuner="unilora", stem_width=0).attach(backbone)
