"""Learning rates, parameter groups and samplers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geotune import Full, Lora, Mpo, Peft, Vpt
from geotune.methods.core.injection import mark_inserted
from geotune.training.loaders import EpochSampler, RankSampler
from geotune.training.micro_batching import MicroBatcher
from geotune.training.optimizer import layer_decay_note
from geotune.training.training_module import PLATEAU_EPOCHS, Plateau, TrainingModule


class Backbone(torch.nn.Conv2d):
    blocks = ()
    model = None
    name = "net"


class Net(torch.nn.Module):
    """Module names as in `geotune.model.Model`."""

    def __init__(self, backbone_trains: bool) -> None:
        super().__init__()
        self.encoder: Any = torch.nn.Module()
        self.encoder.backbone = Backbone(1, 1, 1)
        self.encoder.backbone_trains = backbone_trains
        self.decoder = torch.nn.Conv2d(1, 2, 1)


class Task:
    def metrics(self) -> torch.nn.Module:
        return torch.nn.Identity()


def training(backbone_trains: bool = False, **changes: Any) -> TrainingModule:
    values: dict[str, Any] = {
        "total_steps": 100,
        "monitor": "miou",
        "lr": 1.0,
        "backbone_lr": None,
        "weight_decay": 0.1,
        "schedule": "cosine",
        "warmup": 0.1,
        "seed": 0,
    }
    return TrainingModule(Net(backbone_trains), Task(), MicroBatcher(1), **(values | changes))  # type: ignore[arg-type]


def test_cosine_schedule_with_warmup() -> None:
    rate = training().lr_factor
    assert [rate(i) for i in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(10) == pytest.approx(1.0)
    assert rate(55) == pytest.approx(0.5)
    assert rate(100) == pytest.approx(0.0) == rate(120)
    assert all(rate(i) > rate(i + 1) for i in range(10, 99))


def test_constant_and_plateau_schedules() -> None:
    assert {training(schedule="constant", warmup=0).lr_factor(i) for i in (0, 50, 99)} == {1.0}
    module = training(schedule="plateau", warmup=0)
    for epoch, value in enumerate([0.5, *[0.4] * PLATEAU_EPOCHS]):
        module.plateau.step(value, epoch + 1)
    assert module.lr_factor(50) == 0.5


def test_plateau_counts_epochs_since_the_best() -> None:
    plateau = Plateau()
    values = [0.1, *[0.1] * (PLATEAU_EPOCHS - 1), 0.2, *[math.nan] * (PLATEAU_EPOCHS - 1)]
    for epoch, value in enumerate(values):
        plateau.step(value, epoch + 1)
    assert plateau.factor == 1.0
    plateau.step(0.15, len(values) + 1)
    assert plateau.factor == 0.5
    plateau.step(0.15, len(values) + PLATEAU_EPOCHS)  # some epochs were not validated
    assert plateau.factor == 0.5
    plateau.step(0.15, len(values) + 1 + PLATEAU_EPOCHS)
    assert plateau.factor == 0.25
    restored = Plateau(**vars(plateau))
    assert vars(restored) == vars(plateau)


def groups(module: TrainingModule) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of each parameter."""
    optimizer: Any = module.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    names = {id(p): name for name, p in module.model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize(("backbone_lr", "rate"), [(None, 0.1), (7.0, 7.0)])
def test_backbone_weights_have_a_lower_learning_rate(
    backbone_lr: float | None, rate: float
) -> None:
    assert groups(training(True, backbone_lr=backbone_lr, warmup=0)) == {
        "encoder.backbone.weight": (rate, 0.1),
        "encoder.backbone.bias": (rate, 0.0),
        "decoder.weight": (1.0, 0.1),
        "decoder.bias": (1.0, 0.0),
    }


def test_backbone_biases_and_inserted_modules_have_the_full_learning_rate() -> None:
    module = training(True, warmup=0)
    module.model.encoder.backbone.weight.requires_grad_(False)
    assert groups(module)["encoder.backbone.bias"] == (1.0, 0.0)

    module = training(True, warmup=0)
    mark_inserted(module.model.encoder.backbone)
    assert groups(module)["encoder.backbone.weight"] == (1.0, 0.1)


def test_only_weights_of_layers_decay(make_backbone: Callable[..., Any]) -> None:
    for family in ("vit", "swin", "swinv2", "convnext"):
        encoder = Full(stem_width=0).attach(make_backbone(family))
        model = training(True)
        model.model.encoder = encoder
        for name, (_, decay) in groups(model).items():
            leaf = name.rpartition(".")[2]
            matrix = leaf == "weight" and model.model.get_parameter(name).ndim > 1
            expected = matrix and "cpb_mlp" not in name
            assert (decay > 0) == expected, name  # cpb_mlp: listed by timm
    encoder = Vpt(num_prompts=2, stem_width=0).attach(make_backbone("vit"))
    model.model.encoder = encoder
    decays = {name: decay for name, (_, decay) in groups(model).items()}
    assert all(decay == 0 for name, decay in decays.items() if "tokens" in name)
    assert any("tokens" in name for name in decays)
    model.decay_all = True
    assert {decay for _, decay in groups(model).values()} == {0.1}


@pytest.mark.parametrize(
    ("method", "part"),
    [
        (Mpo(stem_width=0), "part."),
        (Peft(tuner="dora", rank=2, stem_width=0), "magnitude"),
        (Peft(tuner="ia3", stem_width=0), "ia3_l"),
    ],
    ids=lambda each: getattr(each, "kind", each),
)
@pytest.mark.parametrize("family", ["vit", "resnet"])
def test_factors_of_pretrained_weights_do_not_decay(
    make_backbone: Callable[..., Any], method: Any, part: str, family: str
) -> None:
    """Towards zero they would shrink the pretrained weights."""
    if family == "resnet" and method.kind == "mpo":
        pytest.skip("unsupported")
    model = training(True)
    model.model.encoder = method.attach(make_backbone(family))
    decays = {name: decay for name, (_, decay) in groups(model).items() if part in name}
    assert decays and not any(decays.values())


@pytest.mark.parametrize("family", ["vit", "swin", "convnext", "resnet"])
def test_layer_decay_lowers_the_learning_rate_of_early_blocks(
    make_backbone: Callable[..., Any], family: str
) -> None:
    backbone = make_backbone(family)
    model = training(True, layer_decay=0.5, backbone_lr=1.0, warmup=0)
    model.model.encoder = Full(stem_width=0).attach(backbone)
    count = len(backbone.blocks)
    names = {id(p): name for name, p in model.model.named_parameters()}
    rates = {name: lr for name, (lr, _) in groups(model).items()}
    assert rates["decoder.weight"] == 1.0
    for i, block in enumerate(backbone.blocks, start=1):
        for parameter in block.parameters():
            assert rates[names[id(parameter)]] == 0.5 ** (max(map(exponent, rates.values())) - i)
    first = next(name for name, _ in model.model.named_parameters())
    assert exponent(rates[first]) in (count, count + 1)  # without or with a final normalisation


@pytest.mark.parametrize(
    ("method", "note"),
    [(Full(stem_width=0), None), (Lora(rank=2, stem_width=0), "several of its blocks")],
)
def test_note_if_layer_decay_has_no_effect(
    make_backbone: Callable[..., Any], method: Any, note: str | None
) -> None:
    model: Any = training(True).model
    model.encoder = method.attach(make_backbone("vit"))
    found = layer_decay_note(model, 0.75)
    assert (found is None) == (note is None) and (note or "") in (found or "")
    assert layer_decay_note(model, 1.0) is None
    without_blocks: Any = training(True).model
    assert "blocks are unknown" in (layer_decay_note(without_blocks, 0.75) or "")


def exponent(rate: float) -> int:
    return round(-math.log2(rate))


@given(length=st.integers(1, 50), world=st.integers(1, 8))
def test_samplers_split_the_dataset_among_processes(length: int, world: int) -> None:
    shares = [list(RankSampler(length, rank, world)) for rank in range(world)]
    assert sorted(i for share in shares for i in share) == list(range(length))
    even = [list(EpochSampler(length, rank, world)) for rank in range(world)]
    assert {len(share) for share in even} == {-(-length // world)}
    assert {i for share in even for i in share} == set(range(length))


def test_batches_of_several_processes_equal_those_of_one() -> None:
    shares = [list(EpochSampler(12, rank, 2)) for rank in range(2)]
    batches = [set(shares[0][i : i + 2] + shares[1][i : i + 2]) for i in (0, 2, 4)]
    assert batches == [set(range(0, 4)), set(range(4, 8)), set(range(8, 12))]


def test_each_epoch_draws_new_windows() -> None:
    sampler = EpochSampler(5, 1, 2)
    first = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == [15 + index for index in first]
