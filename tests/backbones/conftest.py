"""Fixtures of the backbone tests."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

import geotune
from geotune.errors import GeotuneError
from helpers.method_cases import METHODS


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Undo the lower matmul precision that importing terratorch sets for the whole process."""
    torch.set_float32_matmul_precision("highest")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def try_every_method() -> Callable[..., set[str]]:
    """Train copies of a backbone with every method for some steps; returns unsupported methods.

    A step must change exactly the parameters that the method trains, and after the steps in which
    zero-initialised layers wake up, all of them must have gradients. Height and width of the
    images are optional.
    """

    def one_step(encoder: Any, inputs: dict[str, torch.Tensor]) -> set[str]:
        encoder.zero_grad(set_to_none=True)
        maps = encoder(**inputs).maps
        total = torch.stack([(m * torch.randn_like(m)).mean() for m in maps]).sum()
        if total.requires_grad:
            total.backward()
        return {n for n, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}

    def try_all(backbone: geotune.Backbone, height: int = 0, width: int = 0) -> set[str]:
        side = (4 if backbone.is_plain_vit else 2) * backbone.size_divisor
        size = height or side, width or side
        unsupported = set()
        generator = torch.Generator().manual_seed(0)
        for parameter in backbone.parameters():  # no zero may block gradients
            if parameter.is_floating_point() and parameter.abs().max() < 1e-3:
                parameter.data += torch.rand(parameter.shape, generator=generator)
        for name, case in METHODS.items():
            torch.manual_seed(0)
            method = case.method.model_copy(update={"stem_width": 0})
            try:
                encoder: Any = geotune.attach(copy.deepcopy(backbone), method).train()
            except GeotuneError:
                unsupported.add(name)
                continue
            inputs = {k: torch.cat([v, v.flip(-1)]) for k, v in backbone.example(*size).items()}
            if encoder.reader.calibration_samples:
                encoder.calibrate([inputs])
            names = set(encoder.trainable_names())
            before = {n: t.clone() for n, t in encoder.state_dict().items()}
            for _ in range(case.warmup_steps):
                assert one_step(encoder, inputs) <= names, name
                for parameter in encoder.parameters():
                    if parameter.grad is not None:
                        parameter.data -= 0.01 * parameter.grad.sign()
            assert one_step(encoder, inputs) == names, name
            after = encoder.state_dict()
            changed = {n for n in after if not torch.equal(after[n], before[n])}
            moving = {n for n in after if "running_" in n or n.endswith("batches_tracked")}
            if not case.backbone_frozen and name != "full":
                moving -= {n for n in moving if n.startswith("backbone.")}
            assert changed <= names | moving, name
            assert bool(changed) == bool(names), name
        return unsupported

    return try_all
