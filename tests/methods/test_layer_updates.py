"""Methods that update the backbone's own layers, against their formulas."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.aurora import Aurora, ModeFactors, ModeUpdate
from geotune.methods.core.layer_updates import LayerUpdate, UpdatedLayer
from geotune.methods.molora import LoraExperts, Molora
from geotune.methods.mpo import AuxiliaryTensors, Mpo, balanced_factors
from geotune.methods.slr import ScaledLowRank, Slr
from geotune.methods.subspace_scaling import SubspaceScaling
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


def randomise(module: nn.Module) -> dict[str, Tensor]:
    """Set every parameter to random values and return them by name."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator))
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def check(update: LayerUpdate, layer: nn.Linear | nn.Conv2d, x: Tensor, expected: Tensor) -> None:
    """The update gives the expected outputs, and so does the layer after merging."""
    with torch.no_grad():
        torch.testing.assert_close(update(layer, x), expected, rtol=1e-4, atol=1e-4)
        update.merge(layer)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-4)


# ---------------------------------------------------------------- ssl, ssb
@pytest.mark.parametrize("outputs", [False, True])
def test_subspace_scaling_matches_its_formula(outputs: bool) -> None:
    """y = diag(c) W diag(a) x + b; ssl has c = 1."""
    layer, x = nn.Linear(3, 2), torch.randn(4, 3)
    update = SubspaceScaling(layer, outputs=outputs)
    p = randomise(update)
    left = torch.diag(p["c"]) if outputs else torch.eye(2)
    w, b = layer.weight.detach().clone(), layer.bias.detach()
    expected = torch.stack([left @ w @ torch.diag(p["a"]) @ row + b for row in x])
    check(update, layer, x, expected)
    assert sum(v.numel() for v in p.values()) == (5 if outputs else 3)


def test_subspace_scaling_of_a_convolution_in_groups() -> None:
    layer, x = nn.Conv2d(4, 6, 3, groups=2), torch.randn(1, 4, 5, 5)
    update = SubspaceScaling(layer, outputs=True)
    p = randomise(update)
    plain = nn.functional.conv2d(x * p["a"].view(4, 1, 1), layer.weight, None, groups=2)
    expected = plain.detach() * p["c"].view(6, 1, 1) + layer.bias.detach().view(6, 1, 1)
    check(update, layer, x, expected)


# ---------------------------------------------------------------- slr
def test_scaled_low_rank_matches_its_formula() -> None:
    """y = s_out * (W (s_in * x) + b + Up(Down(s_in * x)))."""
    layer, x = nn.Linear(5, 4), torch.randn(3, 5)
    update = ScaledLowRank(layer, rank=2)
    p = randomise(update)
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    rows = []
    for row in x:
        s = p["scale_in"] * row
        rows.append(p["scale_out"] * (w @ s + b + p["up.weight"] @ (p["down.weight"] @ s)))
    check(update, layer, x, torch.stack(rows))


def test_scaled_low_rank_patch_embedding_matches_its_formula() -> None:
    """The same, with Down a convolution of the patch's size and stride."""
    layer, x = nn.Conv2d(3, 4, 2, stride=2), torch.randn(1, 3, 4, 6)
    update = ScaledLowRank(layer, rank=2)
    p = randomise(update)
    w, b = layer.weight.detach().clone(), layer.bias.detach().clone()
    expected = torch.empty(1, 4, 2, 3)
    for i in range(2):
        for j in range(3):
            patch = p["scale_in"].view(3, 1, 1) * x[0, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
            low = (p["down.weight"] * patch).sum((1, 2, 3))
            inner = (w * patch).sum((1, 2, 3)) + b + p["up.weight"][..., 0, 0] @ low
            expected[0, :, i, j] = p["scale_out"] * inner
    check(update, layer, x, expected)


@pytest.mark.parametrize(
    ("family", "embedding"),
    [("vit", "patch_embed.proj"), ("swin", "patch_embed.proj"), ("convnext", "stem.0")],
)
def test_slr_updates_all_linear_layers_and_the_patch_embedding(
    make_backbone: MakeBackbone, family: str, embedding: str
) -> None:
    def updated(method: Slr) -> set[str]:
        backbone = make_backbone(family)
        method.attach(backbone)
        return {n for n, m in backbone.model.named_modules() if isinstance(m, UpdatedLayer)}

    inside = updated(Slr(rank=2, patch_embedding=False))
    assert updated(Slr(rank=2)) - inside == {embedding}
    kinds = {name.rpartition(".")[2] for name in inside}
    assert kinds == ({"fc1", "fc2"} if family == "convnext" else {"qkv", "proj", "fc1", "fc2"})


def test_slr_in_a_convolution_with_groups_raises(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("convnext")
    with raises("method-option-invalid", mentions=["method.targets conv_dw", "groups"]):
        Slr(rank=1, targets=["conv_dw"]).attach(backbone)


# ---------------------------------------------------------------- molora
def test_lora_experts_match_their_formula() -> None:
    """y = W x + b + (alpha / r) sum_e softmax(R x + r)_e B_e A_e x, token by token."""
    layer, x = nn.Linear(5, 4), torch.randn(2, 3, 5)
    update = LoraExperts(layer, experts=3, rank=2, alpha=3)
    p = randomise(update)
    expected = torch.empty(2, 3, 4)
    for i in range(2):
        for j in range(3):
            row = x[i, j]
            logits = p["router.weight"] @ row + p["router.bias"]
            gates = logits.exp() / logits.exp().sum()
            y = layer.weight.detach() @ row + layer.bias.detach()
            for e in range(3):
                a = p["a.weight"][2 * e : 2 * e + 2]
                b = p["b.weight"][:, 2 * e : 2 * e + 2]
                y = y + 1.5 * gates[e] * (b @ (a @ row))
            expected[i, j] = y
    with torch.no_grad():
        torch.testing.assert_close(update(layer, x), expected, rtol=1e-4, atol=1e-4)


def test_one_expert_raises() -> None:
    with raises("recipe-invalid", key="method.experts", mentions=[2]):
        Molora(experts=1)


# ---------------------------------------------------------------- aurora
@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (3, 6), (6, 3)])
def test_mode_approximation_matches_its_formula(inputs: int, outputs: int) -> None:
    """dW_m = U (G x_3 p_m) V; one for each C outputs, or, with the core transposed, inputs."""
    width, rank, scale = 3, 2, 0.7
    layer, x = nn.Linear(inputs, outputs), torch.randn(4, inputs)
    factors = ModeFactors(width, rank)
    update = ModeUpdate(layer, factors, scale, 0.1).eval()
    p, shared = randomise(update), randomise(factors)
    u, g, v = (shared[name] for name in ("u", "core", "v"))
    y = x @ layer.weight.detach().T + layer.bias.detach()
    for m, mode in enumerate(p["modes"]):
        core = torch.zeros(rank, rank)
        for k in range(rank):
            core += g[:, :, k] * mode[k]
        part = slice(width * m, width * (m + 1))
        if inputs > outputs:
            y += scale * x[:, part] @ (u @ core.T @ v)
        else:
            y[:, part] += scale * x @ (u @ core @ v)
    check(update, layer, x, y)


def test_aurora_shares_factors_by_width(make_backbone: MakeBackbone) -> None:
    """ViT: one U, G and V; 3 + 1 + 4 + 4 modes of R values in each block."""
    encoder = Aurora(rank=4, stem_width=0).attach(make_backbone("vit"))
    sizes = {n: encoder.get_parameter(n).numel() for n in encoder.trainable_names()}
    depth, width = 6, 64
    assert len([name for name in sizes if name.endswith(".core")]) == 1
    assert sum(sizes.values()) == 2 * 4 * width + 4**3 + depth * 4 * (3 + 1 + 3 + 3)
    swin = Aurora(rank=4, stem_width=0).attach(make_backbone("swin"))
    assert len([n for n in swin.trainable_names() if n.endswith(".core")]) == 4


def test_aurora_with_a_rank_above_the_width_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.rank", mentions=[64, 16]):
        Aurora().attach(make_backbone("swin"))


# ---------------------------------------------------------------- mpo
@pytest.mark.parametrize(
    ("number", "count", "factors"),
    [
        (768, 5, [4, 4, 3, 4, 4]),
        (3072, 5, [6, 4, 8, 4, 4]),
        (64, 3, [4, 4, 4]),
        (13, 5, [1, 1, 13, 1, 1]),
    ],
)
def test_factors_multiply_to_the_size(number: int, count: int, factors: list[int]) -> None:
    assert balanced_factors(number, count) == factors
    assert math.prod(factors) == number


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 8), (8, 12), (7, 32)])
def test_weight_equals_the_matrix_product_operator(inputs: int, outputs: int) -> None:
    """W[i_1 i_2 i_3, j_1 j_2 j_3] = T_1[i_1 j_1] T_2[i_2 j_2] T_3[i_3 j_3], before and after T_1
    and T_3 have changed; T_2 = P_0' W Q_0'."""
    layer, x = nn.Linear(inputs, outputs), torch.randn(3, inputs)
    w = layer.weight.detach().clone()
    update = AuxiliaryTensors(layer, 3)
    (i1, j1), (i2, j2), (i3, j3) = update.sizes
    assert (i1 * i2 * i3, j1 * j2 * j3) == (outputs, inputs)
    tensor = w.reshape(i1, i2, i3, j1, j2, j3)
    start_left, start_right = update.start_left0[0], update.start_right0[0]
    torch.testing.assert_close(start_left.T @ start_left, torch.eye(start_left.shape[1]))
    p0, q0 = start_left.reshape(i1, j1, -1), start_right.reshape(i3, j3, -1)
    central = torch.einsum("abcxyz,axp,czq->pbyq", tensor, p0, q0)

    def operator() -> Tensor:
        t1 = update.left[0].detach().reshape(i1, j1, -1)
        t3 = update.right[0].detach().reshape(i3, j3, -1)
        out = torch.zeros(i1, i2, i3, j1, j2, j3)
        for p in range(t1.shape[2]):
            for q in range(t3.shape[2]):
                out += torch.einsum("ax,by,cz->abcxyz", t1[..., p], central[p, ..., q], t3[..., q])
        return out.reshape(outputs, inputs)

    torch.testing.assert_close(operator(), w, rtol=1e-4, atol=1e-5)
    randomise(update)
    check(update, layer, x, x @ operator().T + layer.bias.detach())


def test_five_tensors_start_at_the_weight() -> None:
    layer = nn.Linear(32, 48)
    update = AuxiliaryTensors(layer, 5)
    with torch.no_grad():
        torch.testing.assert_close(update.updated_weight(layer), layer.weight, rtol=1e-4, atol=1e-5)
        update.left[1].mul_(2)
        update.right[0].mul_(3)
        doubled = update.updated_weight(layer)
        torch.testing.assert_close(doubled, 6 * layer.weight, rtol=1e-4, atol=1e-5)


def test_an_even_number_of_tensors_raises(make_backbone: MakeBackbone) -> None:
    with raises("method-option-invalid", key="method.tensors", mentions=[4, "odd"]):
        Mpo(tensors=4).attach(make_backbone("vit"))


@pytest.mark.parametrize("method", [Slr(rank=17), Molora(rank=17)])
def test_a_rank_above_the_layers_width_raises(
    make_backbone: MakeBackbone, method: Slr | Molora
) -> None:
    with raises("method-option-invalid", key="method.rank", mentions=[17, 16]):
        method.attach(make_backbone("swin"))


def test_second_attach_raises(make_backbone: MakeBackbone) -> None:
    backbone = make_backbone("vit")
    Slr(rank=2, stem_width=0).attach(backbone)
    with raises("backbone-already-adapted", mentions=["molora", "timm/test_vit"]):
        Molora(rank=2, stem_width=0).attach(backbone)
