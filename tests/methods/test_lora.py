"""LoRA against HF peft's own model, and the layers it goes to."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.lora import Lora

MakeBackbone = Callable[..., Backbone]


def images() -> Tensor:
    return torch.randn(2, 4, 48, 32, generator=torch.Generator().manual_seed(0))


def updated(encoder: Encoder) -> list[str]:
    """Names of the layers with an update, in the backbone's model."""
    return [
        name.removeprefix("backbone.model.").removesuffix(".lora_A.default.weight")
        for name in encoder.trainable_names()
        if ".lora_A." in name
    ]


def test_it_computes_what_pefts_own_model_does(make_backbone: MakeBackbone) -> None:
    from peft import LoraConfig, get_peft_model

    backbone = make_backbone("vit")
    plain = copy.deepcopy(backbone.model)
    encoder = Lora(rank=4, alpha=6, stem_width=0).attach(backbone).eval()
    config = LoraConfig(r=4, lora_alpha=6, target_modules=r"blocks\.\d+\.(attn\.qkv|mlp\.fc[12])")
    theirs = get_peft_model(plain, config).eval()

    generator = torch.Generator().manual_seed(1)
    prefix = "base_model.model."
    values = {
        name: 0.1 * torch.randn(parameter.shape, generator=generator)
        for name, parameter in theirs.named_parameters()
        if parameter.requires_grad
    }
    names = {"backbone.model." + name.removeprefix(prefix) for name in values}
    assert set(encoder.trainable_names()) == names
    with torch.no_grad():
        start = encoder(images()).maps[-1]
        for name, parameter in theirs.named_parameters():
            if name in values:
                parameter.copy_(values[name])
        for name, value in values.items():
            encoder.backbone.model.get_parameter(name.removeprefix(prefix)).copy_(value)
        ours = encoder(images()).maps[-1]
        tokens = theirs.base_model.model.forward_features(images())
    expected = tokens[:, plain.num_prefix_tokens :].transpose(1, 2).unflatten(2, (3, 2))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(ours, start, atol=1e-2)


def test_an_update_is_alpha_over_rank_times_b_a(make_backbone: MakeBackbone) -> None:
    encoder = (
        Lora(rank=2, alpha=3, targets=["fc1"], stem_width=0).attach(make_backbone("vit")).eval()
    )
    layer = encoder.backbone.model.get_submodule("blocks.0.mlp.fc1")
    a, b = (layer.get_parameter(f"lora_{part}.default.weight") for part in "AB")
    nn.init.normal_(b)
    assert a.shape == (2, 64)
    x = torch.randn(5, 64)
    with torch.no_grad():
        plain = layer.get_submodule("base_layer")(x)
        torch.testing.assert_close(layer(x), plain + 1.5 * x @ a.T @ b.T)


ATTENTION = ["attn.qkv", "mlp.fc1", "mlp.fc2"]


@pytest.mark.parametrize(
    ("family", "layers"),
    [
        ("vit", [f"blocks.{i}.{layer}" for i in range(6) for layer in ATTENTION]),
        (
            "swin",
            [
                f"layers.{i}.blocks.{j}.{layer}"
                for i, depth in enumerate((1, 1, 2, 1))
                for j in range(depth)
                for layer in ATTENTION
            ],
        ),
        (
            "convnext",
            [
                f"stages.{i}.blocks.{j}.mlp.fc{k}"
                for i, depth in enumerate((1, 2, 4, 2))
                for j in range(depth)
                for k in (1, 2)
            ],
        ),
        (
            "galileo",
            [
                f"blocks.{i}.{layer}"
                for i in range(4)
                for layer in ("attn.q", "attn.v", "mlp.fc1", "mlp.fc2")
            ],
        ),
    ],
)
def test_by_default_it_goes_to_attention_and_mlp(
    make_backbone: MakeBackbone, family: str, layers: list[str]
) -> None:
    assert updated(Lora(rank=2, stem_width=0).attach(make_backbone(family))) == layers


def test_where_there_is_no_attention_it_goes_to_the_convolutions(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("resnet")
    found = updated(Lora(rank=2, stem_width=0).attach(backbone))
    assert "layer1.0.conv1" in found
    assert "layer4.0.downsample.1" in found
    assert not any(name.startswith("conv1") for name in found), "the stem is no block"


def test_layers_can_be_named(make_backbone: MakeBackbone) -> None:
    found = updated(
        Lora(rank=2, targets=["attn.proj", "blocks.1.mlp.fc1"], stem_width=0).attach(
            make_backbone("vit")
        )
    )
    assert found == [
        name
        for i in range(6)
        for name in (f"blocks.{i}.attn.proj", *(["blocks.1.mlp.fc1"] if i == 1 else []))
    ]


@pytest.mark.parametrize(
    ("family", "method", "message"),
    [
        ("vit", Lora(targets=["query"]), r"method\.targets query: .* it has fc1, fc2, proj, qkv"),
        ("vit", Lora(targets=["qkv", "query"]), r"method\.targets query: no layer"),
        ("vit", Lora(rank=65), r"method\.rank 65: blocks\.0\.attn\.qkv .* at most 64"),
    ],
)
def test_what_does_not_fit_is_said(
    make_backbone: MakeBackbone, family: str, method: Lora, message: str
) -> None:
    backbone = make_backbone(family)
    with pytest.raises(GeotuneError, match=message):
        method.attach(backbone)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_a_second_attach_is_refused(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("vit")
    Lora(rank=2, stem_width=0).attach(backbone)
    with pytest.raises(GeotuneError, match="lora on timm/test_vit"):
        Lora(rank=2, stem_width=0).attach(backbone)


def wake(backbone: Backbone) -> Backbone:
    """Layers that start at zero, and cut off what lies before them, as if they were trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.data += torch.rand(parameter.shape, generator=generator)
    return backbone.eval()


def call_qkv(backbone: Backbone, calls: bool) -> None:
    """Whether attention calls its `qkv` layer or reads its weight, by timm's switch."""
    for module in backbone.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = calls  # type: ignore[assignment]


READERS = ["timm/small_beit", "timm/small_eva02", "timm/small_swinv2"]
"""Their attention reads the weight of `qkv` unless timm is told otherwise."""


@pytest.mark.parametrize("name", READERS)
def test_calling_qkv_changes_no_output(make_backbone: MakeBackbone, name: str) -> None:
    backbone = wake(make_backbone(name))
    with torch.no_grad():
        called = backbone(images()).maps
        call_qkv(backbone, False)
        read = backbone(images()).maps
    for ours, theirs in zip(called, read, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


TORCHVISION = ["swin_t_cityscapes_semseg", "swin_v2_t_sentinel2_si_ms_satlas"]


@pytest.mark.parametrize("name", [*READERS, *(f"torchgeo/{name}" for name in TORCHVISION)])
def test_every_layer_of_attention_is_alive(make_backbone: MakeBackbone, name: str) -> None:
    if name.startswith("torchgeo/"):
        pytest.importorskip("torchgeo")
    bands = ("red", "green", "blue") if "cityscapes" in name else ("B02", "B03", "B04", "B08")
    backbone = wake(make_backbone(name, bands=bands))
    encoder = Lora(rank=2, stem_width=0).attach(backbone).eval()
    layers = updated(encoder)
    ends = {layer.rsplit(".", 1)[-1] for layer in layers}
    assert len([layer for layer in layers if layer.endswith("qkv")]) == len(backbone.blocks)
    assert len(layers) == 3 * len(backbone.blocks), ends
    image = images()[:, : len(bands)]
    last = encoder(image).maps[-1]
    (last * torch.randn_like(last)).sum().backward()
    for layer in layers:
        gradient = encoder.backbone.model.get_parameter(f"{layer}.lora_B.default.weight").grad
        assert gradient is not None and gradient.any(), layer
    with torch.no_grad():
        for parameter_name, parameter in encoder.named_parameters():
            if parameter_name.endswith("qkv.lora_B.default.weight"):
                nn.init.normal_(parameter)
        assert not torch.allclose(encoder(image).maps[-1], last, atol=1e-3)


def test_layers_that_would_stay_dead_are_refused_by_name(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("timm/small_swinv2")
    call_qkv(backbone, False)
    with pytest.raises(GeotuneError) as caught:
        Lora(rank=2, stem_width=0).attach(backbone)
    message = str(caught.value)
    assert "lora on timm/small_swinv2: 5 layers cannot change the output" in message
    assert "reads their weights without calling them: layers.0.blocks.0.attn.qkv" in message
    assert "mlp" not in message
    assert all(parameter.requires_grad for parameter in backbone.parameters())

    assert len(updated(Lora(rank=2, targets=["fc1", "fc2"], stem_width=0).attach(backbone))) == 10


def test_what_lies_behind_the_last_map_is_left_out_unless_it_is_named(
    make_backbone: MakeBackbone,
) -> None:
    name = "timm/test_efficientnet"
    plain = {n for n, _ in make_backbone(name).model.named_modules()}
    found = updated(Lora(rank=2, stem_width=0).attach(make_backbone(name)))
    assert "conv_head" in plain
    assert "blocks.0.0.conv" in found
    assert "conv_head" not in found
    with pytest.raises(GeotuneError, match=r"1 layers .* no map .* depends on them: conv_head;"):
        Lora(rank=2, targets=["conv_head"], stem_width=0).attach(make_backbone(name))


def test_dropout_is_for_training_only(make_backbone: MakeBackbone) -> None:
    encoder = Lora(rank=2, dropout=0.5, stem_width=0).attach(make_backbone("vit"))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter)
        one, two = (encoder.train()(images()).maps[-1] for _ in range(2))
        assert not torch.equal(one, two)
        one, two = (encoder.eval()(images()).maps[-1] for _ in range(2))
        assert torch.equal(one, two)
