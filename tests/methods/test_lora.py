"""LoRA against HF peft's own model, and the layers it goes to."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.base import Encoder
from geotune.methods.lora import Lora
from geotune.types import GeotuneError

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
    encoder = Lora(rank=4, alpha=6, stem=0).attach(backbone).eval()
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
    encoder = Lora(rank=2, alpha=3, targets=["fc1"], stem=0).attach(make_backbone("vit")).eval()
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
    assert updated(Lora(rank=2, stem=0).attach(make_backbone(family))) == layers


def test_where_there_is_no_attention_it_goes_to_the_convolutions(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("resnet")
    found = updated(Lora(rank=2, stem=0).attach(backbone))
    assert "layer1.0.conv1" in found
    assert "layer4.0.downsample.1" in found
    assert not any(name.startswith("conv1") for name in found), "the stem is no block"


def test_layers_can_be_named(make_backbone: MakeBackbone) -> None:
    found = updated(
        Lora(rank=2, targets=["attn.proj", "blocks.1.mlp.fc1"], stem=0).attach(make_backbone("vit"))
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
    Lora(rank=2, stem=0).attach(backbone)
    with pytest.raises(GeotuneError, match="lora on timm/test_vit"):
        Lora(rank=2, stem=0).attach(backbone)


def test_layers_that_would_stay_dead_are_refused_by_name(make_backbone: MakeBackbone) -> None:
    """Swin v2 reads the weights of its qkv layers without calling them."""
    with pytest.raises(GeotuneError) as caught:
        Lora(rank=2, stem=0).attach(make_backbone("timm/small_swinv2"))
    message = str(caught.value)
    assert "lora on timm/small_swinv2" in message
    assert "backbone.model.layers.0.blocks.0.attn.qkv.lora_A.default" in message
    assert "10 attached layers" in message
    assert "mlp" not in message

    encoder = Lora(rank=2, targets=["fc1", "fc2"], stem=0).attach(
        make_backbone("timm/small_swinv2")
    )
    assert len(updated(encoder)) == 10


def test_dropout_is_for_training_only(make_backbone: MakeBackbone) -> None:
    encoder = Lora(rank=2, dropout=0.5, stem=0).attach(make_backbone("vit"))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter)
        one, two = (encoder.train()(images()).maps[-1] for _ in range(2))
        assert not torch.equal(one, two)
        one, two = (encoder.eval()(images()).maps[-1] for _ in range(2))
        assert torch.equal(one, two)
