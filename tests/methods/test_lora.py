"""LoRA against HF peft's own model; which layers it updates."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from geotune.backbones.base import Backbone
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.fused_qkv import join_all_qkv, qkv_layout, split_qkv
from geotune.methods.core.reader import SelectedFeatures
from geotune.methods.lora import Lora
from helpers.errors import raises

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


def test_outputs_equal_those_of_pefts_own_model(make_backbone: MakeBackbone) -> None:
    from peft import LoraConfig, get_peft_model

    backbone = make_backbone("vit")
    plain = copy.deepcopy(backbone.model)
    targets = ["qkv", "fc1", "fc2"]
    encoder = Lora(rank=4, alpha=6, targets=targets, stem_width=0).attach(backbone).eval()
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


def test_update_matches_its_formula(make_backbone: MakeBackbone) -> None:
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


FUSED = ["vit", "registers", "swin", "swinv2", "timm/small_beit", "timm/small_eva02"]


@pytest.mark.parametrize("family", FUSED)
def test_fused_attention_is_adapted_in_queries_and_values_only(
    make_backbone: MakeBackbone, family: str
) -> None:
    """The update equals one of the fused weight whose rows of the keys are zero."""
    backbone = without_zeros(make_backbone(family))
    plain = copy.deepcopy(backbone)
    encoder = Lora(rank=2, alpha=3, stem_width=0).attach(backbone).eval()
    model = encoder.backbone.model
    adapted = updated(encoder)
    assert not any(name.endswith((".k", ".qkv")) for name in adapted)
    count = 0
    for name in adapted:
        layer = model.get_submodule(name)
        a, b = (layer.get_parameter(f"lora_{part}.default.weight") for part in "AB")
        nn.init.normal_(b, std=0.1)
        update = 1.5 * (b @ a).detach()
        fused, _, last = name.rpartition(".")
        if fused.endswith("qkv"):
            width = len(update)
            assert a.shape[0] == b.shape[1] == 2
            weight = plain.model.get_submodule(fused).get_parameter("weight")
            start = {"q": 0, "v": 2 * width}[last]
            weight.data[start : start + width] += update
            count += 1
        else:
            plain.model.get_submodule(name).get_parameter("weight").data += update
    assert count == 2 * len(backbone.taps)
    with torch.no_grad():
        for ours, expected in zip(encoder(images()).maps, plain_maps(plain), strict=True):
            torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)
    encoder.merge()
    expected_state = plain.state_dict()
    assert backbone.state_dict().keys() == expected_state.keys()
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(tensor, expected_state[name], rtol=1e-5, atol=1e-6)


def plain_maps(backbone: Backbone) -> tuple[Tensor, ...]:
    taps = SelectedFeatures(backbone).out_indices
    maps: tuple[Tensor, ...] = backbone(images(), taps=taps).maps
    return maps


@pytest.mark.parametrize("family", FUSED)
def test_thirds_of_a_fused_layer_are_queries_keys_values(
    make_backbone: MakeBackbone, family: str
) -> None:
    """The queries of one place change only its own output; values act linearly; keys do not."""
    backbone = without_zeros(make_backbone(family))
    names = [n for n, _ in backbone.model.named_modules() if qkv_layout(backbone.model, n)]
    name = names[0]
    attention = backbone.model.get_submodule(name.rpartition(".")[0])
    calls: list[tuple[Any, Any]] = []
    hook = attention.register_forward_pre_hook(
        lambda _module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    with torch.no_grad():
        backbone(images())
        hook.remove()
        args, kwargs = calls[0]
        fused = backbone.model.get_submodule(name)

        def changed(third: int, scale: float) -> Tensor:
            def add(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
                output = output.clone()
                width = output.shape[-1] // 3
                noise = torch.randn(width, generator=torch.Generator().manual_seed(0))
                output[..., -1, third * width : (third + 1) * width] += scale * noise
                return output

            handle = fused.register_forward_hook(add)
            out: Tensor = attention(*args, **kwargs)
            handle.remove()
            return out.flatten(0, -2)

        base = changed(0, 0.0)
        places = [(changed(third, 1.0) - base).abs().amax(-1) > 1e-6 for third in range(3)]
        bends = [
            (changed(third, 1.0) + changed(third, -1.0) - 2 * base).abs().max()
            for third in range(3)
        ]
    tokens = base.shape[0] // images().shape[0]
    assert places[0].sum() < places[2].sum() <= base.shape[0]
    assert places[0].sum() <= base.shape[0] // (tokens if family in ("vit", "registers") else 1)
    assert bends[2] < 1e-4 < 10 * bends[1]


def attention_layers() -> dict[str, tuple[nn.Module, tuple[Any, ...]]]:
    """Small attention layers of timm with a fused layer, and their inputs."""
    from timm.layers.attention import Attention
    from timm.models import efficientformer, gcvit, maxxvit, swin_transformer, tiny_vit, visformer

    tokens, maps = torch.randn(2, 16, 12), torch.randn(2, 12, 4, 4)
    heads: dict[str, Any] = {"num_heads": 3}
    window = {"window_size": (4, 4), **heads}
    by_key: dict[str, Any] = {"key_dim": 2, "attn_ratio": 2, **heads}
    return {
        "plain": (Attention(12, qkv_bias=True, **heads), (tokens,)),
        "swin": (swin_transformer.WindowAttention(12, **window), (tokens,)),
        "maxvit": (maxxvit.AttentionCl(12, dim_head=4), (tokens,)),
        "maxvit, tensorflow": (maxxvit.AttentionCl(12, dim_head=4, head_first=False), (tokens,)),
        "coatnet": (maxxvit.Attention2d(12, dim_head=4), (maps,)),
        "coatnet, thirds": (maxxvit.Attention2d(12, dim_head=4, head_first=False), (maps,)),
        "tiny_vit": (tiny_vit.Attention(12, resolution=(4, 4), **by_key), (tokens,)),
        "efficientformer": (efficientformer.Attention(12, resolution=4, **by_key), (tokens,)),
        "gcvit": (gcvit.WindowAttentionGlobal(12, use_global=False, **window), (tokens,)),
        "gcvit, global": (gcvit.WindowAttentionGlobal(12, **window), (tokens, tokens.flip(1))),
        "visformer": (visformer.Attention(12, **heads), (maps,)),
    }


class AttentionOperands(TorchFunctionMode):
    """Records what attention multiplies, alone or by PyTorch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Tensor, ...]] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in (torch.matmul, Tensor.matmul, Tensor.__matmul__):
            self.calls.append(args[:2])
        elif func is nn.functional.scaled_dot_product_attention:
            self.calls += [args[:2], (args[0], args[2])]
        return func(*args, **(kwargs or {}))


def queries_keys_values(attention: nn.Module, inputs: tuple[Any, ...]) -> list[Tensor]:
    with torch.no_grad(), AttentionOperands() as operands:
        attention(*inputs)
    (queries, keys), (_, values) = operands.calls
    return [queries, keys, values]


@pytest.mark.parametrize("name", attention_layers())
def test_adapted_queries_and_values_leave_the_keys_of_every_layout(name: str) -> None:
    torch.manual_seed(0)
    attention, inputs = attention_layers()[name]
    attention.eval()
    state = {key: tensor.clone() for key, tensor in attention.state_dict().items()}
    model = nn.ModuleDict({"attn": attention})
    plain, output = queries_keys_values(attention, inputs), attention(*inputs)
    layout = qkv_layout(model, "attn.qkv")
    assert layout is not None
    layers = split_qkv(model, "attn.qkv", layout)
    parts = "v" if name == "gcvit, global" else "qv"
    assert list(layers) == [f"attn.qkv.{part}" for part in parts]
    torch.testing.assert_close(attention(*inputs), output)
    for part, layer in layers.items():
        layer.weight.data += torch.randn(layer.weight.shape)
        found = queries_keys_values(attention, inputs)
        changed = [
            not torch.allclose(one, two, atol=1e-5) for one, two in zip(found, plain, strict=True)
        ]
        assert changed == [part.endswith(".q"), False, part.endswith(".v")]
        layer.weight.data = layout.split(state["qkv.weight"])["qkv".index(part[-1])]
    join_all_qkv(model)
    assert attention.state_dict().keys() == state.keys()
    for key, tensor in attention.state_dict().items():
        assert torch.equal(tensor, state[key])


@pytest.mark.parametrize("family", ["timm/tiny_vit_5m_224", "timm/maxvit_rmlp_pico_rw_256"])
def test_lora_splits_heads_in_any_order_and_keeps_explicit_targets_fused(
    make_backbone: MakeBackbone, family: str
) -> None:
    backbone = make_backbone(family)
    encoder = Lora(rank=2, stem_width=0).attach(backbone)
    layers = {name for name in updated(encoder) if ".qkv" in name}
    assert layers and {name.rpartition(".")[2] for name in layers} == {"q", "v"}
    encoder.merge()
    names = [name for name, _ in backbone.model.named_parameters()]
    assert not any(".qkv.q." in name for name in names)
    explicit = Lora(rank=2, targets=["qkv"], stem_width=0).attach(make_backbone(family))
    assert {name.rpartition(".")[0] for name in layers} == set(updated(explicit))


ATTENTION = ["attn.qkv.q", "attn.qkv.v", "mlp.fc1", "mlp.fc2"]


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
def test_default_targets_are_attention_and_mlp(
    make_backbone: MakeBackbone, family: str, layers: list[str]
) -> None:
    assert updated(Lora(rank=2, stem_width=0).attach(make_backbone(family))) == layers


def test_default_targets_of_a_resnet_are_convolutions(
    make_backbone: MakeBackbone,
) -> None:
    backbone = make_backbone("resnet")
    layers = updated(Lora(rank=2, stem_width=0).attach(backbone))
    assert "layer1.0.conv1" in layers
    assert "layer4.0.downsample.1" in layers
    assert not any(name.startswith("conv1") for name in layers), "not in the blocks"


def test_targets_select_layers(make_backbone: MakeBackbone) -> None:
    layers = updated(
        Lora(rank=2, targets=["attn.proj", "blocks.1.mlp.fc1"], stem_width=0).attach(
            make_backbone("vit")
        )
    )
    assert layers == [
        name
        for i in range(6)
        for name in (f"blocks.{i}.attn.proj", *(["blocks.1.mlp.fc1"] if i == 1 else []))
    ]


@pytest.mark.parametrize(
    ("method", "key", "mentions"),
    [
        (Lora(targets=["query"]), "targets", ["query", "fc1, fc2, proj, qkv"]),
        (Lora(targets=["qkv", "query"]), "targets", [" query:"]),
        (Lora(rank=65), "rank", [65, "blocks.0.attn.qkv", 64]),
    ],
)
def test_options_that_do_not_fit_raise(
    make_backbone: MakeBackbone, method: Lora, key: str, mentions: list[object]
) -> None:
    backbone = make_backbone("vit")
    with raises("method-option-invalid", key=f"method.{key}", mentions=mentions):
        method.attach(backbone)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


def test_second_attach_raises(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("vit")
    Lora(rank=2, stem_width=0).attach(backbone)
    with raises("backbone-already-adapted", mentions=["lora", "timm/test_vit"]):
        Lora(rank=2, stem_width=0).attach(backbone)


def without_zeros(backbone: Backbone) -> Backbone:
    """Randomise parameters that are nearly zero and would block gradients."""
    generator = torch.Generator().manual_seed(0)
    for parameter in backbone.parameters():
        if parameter.abs().max() < 1e-3:
            parameter.data += torch.rand(parameter.shape, generator=generator)
    return backbone.eval()


def call_qkv(backbone: Backbone, calls: bool) -> None:
    """Set whether attention calls its `qkv` layer or reads its weight, by timm's switch."""
    for module in backbone.modules():
        if hasattr(module, "qkv_bias_separate"):
            module.qkv_bias_separate = calls  # type: ignore[assignment]


QKV_READERS = ["timm/small_beit", "timm/small_eva02", "timm/small_swinv2"]
"""Models whose attention reads the weight of `qkv` by default in timm."""


@pytest.mark.parametrize("name", QKV_READERS)
def test_calling_qkv_does_not_change_the_output(make_backbone: MakeBackbone, name: str) -> None:
    backbone = without_zeros(make_backbone(name))
    with torch.no_grad():
        called = backbone(images()).maps
        call_qkv(backbone, False)
        read = backbone(images()).maps
    for ours, theirs in zip(called, read, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


TORCHVISION = ["swin_t_cityscapes_semseg", "swin_v2_t_sentinel2_si_ms_satlas"]


@pytest.mark.parametrize("name", [*QKV_READERS, *(f"torchgeo/{name}" for name in TORCHVISION)])
def test_every_attention_layer_receives_a_gradient(make_backbone: MakeBackbone, name: str) -> None:
    if name.startswith("torchgeo/"):
        pytest.importorskip("torchgeo")
    bands = ("red", "green", "blue") if "cityscapes" in name else ("B02", "B03", "B04", "B08")
    backbone = without_zeros(make_backbone(name, bands=bands))
    encoder = Lora(rank=2, stem_width=0).attach(backbone).eval()
    layers = updated(encoder)
    ends = {layer.rsplit(".", 1)[-1] for layer in layers}
    for end in ("qkv.q", "qkv.v"):
        assert len([layer for layer in layers if layer.endswith(end)]) == len(backbone.blocks)
    assert len(layers) == 4 * len(backbone.blocks), ends
    image = images()[:, : len(bands)]
    last = encoder(image).maps[-1]
    (last * torch.randn_like(last)).sum().backward()
    for layer in layers:
        gradient = encoder.backbone.model.get_parameter(f"{layer}.lora_B.default.weight").grad
        assert gradient is not None and gradient.any(), layer
    with torch.no_grad():
        for parameter_name, parameter in encoder.named_parameters():
            if parameter_name.endswith("qkv.q.lora_B.default.weight"):
                nn.init.normal_(parameter)
        assert not torch.allclose(encoder(image).maps[-1], last, atol=1e-3)


def test_dead_layers_raise(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("timm/small_swinv2")
    call_qkv(backbone, False)
    mentions = ["lora on timm/small_swinv2", "5 layers", "layers.0.blocks.0.attn.qkv"]
    with raises("method-layers-dead", key="method.targets", mentions=mentions) as caught:
        Lora(rank=2, stem_width=0).attach(backbone)
    assert "mlp" not in str(caught.value)
    assert all(parameter.requires_grad for parameter in backbone.parameters())

    assert len(updated(Lora(rank=2, targets=["fc1", "fc2"], stem_width=0).attach(backbone))) == 10


def test_layers_after_the_last_map_are_skipped_or_raise(
    make_backbone: MakeBackbone,
) -> None:
    name = "timm/test_efficientnet"
    plain = {n for n, _ in make_backbone(name).model.named_modules()}
    layers = updated(Lora(rank=2, stem_width=0).attach(make_backbone(name)))
    assert "conv_head" in plain
    assert "blocks.0.0.conv" in layers
    assert "conv_head" not in layers
    with raises("method-layers-dead", key="method.targets", mentions=["1 layer", "conv_head"]):
        Lora(rank=2, targets=["conv_head"], stem_width=0).attach(make_backbone(name))


def test_dropout_is_applied_in_training_only(make_backbone: MakeBackbone) -> None:
    encoder = Lora(rank=2, dropout=0.5, stem_width=0).attach(make_backbone("vit"))
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if ".lora_B." in name:
                nn.init.normal_(parameter)
        one, two = (encoder.train()(images()).maps[-1] for _ in range(2))
        assert not torch.equal(one, two)
        one, two = (encoder.eval()(images()).maps[-1] for _ in range(2))
        assert torch.equal(one, two)
