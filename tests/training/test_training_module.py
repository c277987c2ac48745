"""Rates, groups and random numbers of a step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geotune.methods.core.injection import mark_inserted
from geotune.training.loaders import EpochSampler, RankSampler
from geotune.training.micro_batching import MicroBatcher
from geotune.training.training_module import PLATEAU_EPOCHS, Plateau, TrainingModule


class Net(torch.nn.Module):
    """Names as in `geotune.model.Model`."""

    def __init__(self, backbone_trains: bool) -> None:
        super().__init__()
        self.encoder: Any = torch.nn.Module()
        self.encoder.backbone = torch.nn.Conv2d(1, 1, 1)
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


def test_cosine_with_warmup() -> None:
    rate = training()._lr_factor
    assert [rate(i) for i in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert rate(10) == pytest.approx(1.0)
    assert rate(55) == pytest.approx(0.5)
    assert rate(100) == pytest.approx(0.0) == rate(120)
    assert all(rate(i) > rate(i + 1) for i in range(10, 99))


def test_constant_and_plateau() -> None:
    assert {training(schedule="constant", warmup=0)._lr_factor(i) for i in (0, 50, 99)} == {1.0}
    module = training(schedule="plateau", warmup=0)
    for value in [0.5, *[0.4] * PLATEAU_EPOCHS]:
        module.plateau.step(value)
    assert module._lr_factor(50) == 0.5


def test_plateau_counts_from_the_best() -> None:
    plateau = Plateau()
    for value in [0.1, *[0.1] * (PLATEAU_EPOCHS - 1), 0.2, *[math.nan] * (PLATEAU_EPOCHS - 1)]:
        plateau.step(value)
    assert plateau.factor == 1.0
    plateau.step(0.15)
    assert plateau.factor == 0.5
    again = Plateau(**vars(plateau))
    assert vars(again) == vars(plateau)


def groups(module: TrainingModule) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter."""
    optimizer: Any = module.configure_optimizers()["optimizer"]  # type: ignore[index, call-overload]
    names = {id(p): name for name, p in module.model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for p in group["params"]
    }


@pytest.mark.parametrize(("backbone_lr", "rate"), [(None, 0.1), (7.0, 7.0)])
def test_whole_weights_of_the_backbone_learn_slowly(backbone_lr: float | None, rate: float) -> None:
    assert groups(training(True, backbone_lr=backbone_lr, warmup=0)) == {
        "encoder.backbone.weight": (rate, 0.1),
        "encoder.backbone.bias": (rate, 0.0),
        "decoder.weight": (1.0, 0.1),
        "decoder.bias": (1.0, 0.0),
    }


def test_biases_alone_and_what_was_put_in_learn_at_the_rate() -> None:
    module = training(True, warmup=0)
    module.model.encoder.backbone.weight.requires_grad_(False)
    assert groups(module)["encoder.backbone.bias"] == (1.0, 0.0)

    module = training(True, warmup=0)
    mark_inserted(module.model.encoder.backbone)
    assert groups(module)["encoder.backbone.weight"] == (1.0, 0.1)


@given(length=st.integers(1, 50), world=st.integers(1, 8))
def test_every_process_has_its_part(length: int, world: int) -> None:
    parts = [list(RankSampler(length, rank, world)) for rank in range(world)]
    assert sorted(i for part in parts for i in part) == list(range(length))
    even = [list(EpochSampler(length, rank, world)) for rank in range(world)]
    assert {len(part) for part in even} == {-(-length // world)}
    assert {i for part in even for i in part} == set(range(length))


def test_batches_of_many_processes_are_those_of_one() -> None:
    parts = [list(EpochSampler(12, rank, 2)) for rank in range(2)]
    batches = [set(parts[0][i : i + 2] + parts[1][i : i + 2]) for i in (0, 2, 4)]
    assert batches == [set(range(0, 4)), set(range(4, 8)), set(range(8, 12))]


def test_every_epoch_draws_other_windows() -> None:
    sampler = EpochSampler(5, 1, 2)
    first = list(sampler)
    sampler.set_epoch(3)
    assert list(sampler) == [15 + index for index in first]
