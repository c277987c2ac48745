"""Run in each of two processes by `test_sharding.py`: gradients of a parted model and of a whole.

Takes recipes as a JSON list; says for each how far they are apart, as a share of the largest.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from geotune.config import parse_recipe
from geotune.factory.build_model import build_training
from geotune.model import Model
from geotune.training.fsdp import full_state_dict, shard
from geotune.types import BandStatistics


def main() -> None:
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    apart = [differences(values, mesh) for values in json.loads(sys.argv[1])]
    if dist.get_rank() == 0:
        print(json.dumps(apart))
    dist.destroy_process_group()


def differences(values: dict[str, Any], mesh: Any) -> dict[str, float]:
    rank, random = dist.get_rank(), torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=random)
    masks = torch.randint(0, 2, (4, 64, 64), generator=random)
    mine = slice(2 * rank, 2 * rank + 2)

    whole, parted = build(values), build(values)
    before = {name: tensor.clone() for name, tensor in full_state_dict(whole).items()}
    numbers = shard(parted, mesh)
    expected = gradients(whole, images, masks)
    found = gradients(parted, images[mine], masks[mine])
    assert found.keys() == expected.keys()
    with torch.no_grad():
        outputs = [model.eval()(images) for model in (whole, parted)]
    state = full_state_dict(parted)
    if rank == 0:
        assert state.keys() == before.keys()
        for name, tensor in before.items():
            assert torch.equal(state[name].reshape(tensor.shape), tensor), name
    size = max(float(gradient.abs().max()) for gradient in expected.values())
    return {
        "gradients": max(
            float((found[name].reshape(expected[name].shape) - expected[name]).abs().max())
            for name in expected
        )
        / size,
        "outputs": float((outputs[0] - outputs[1]).abs().max()),
        "numbers": len(numbers),
    }


def build(values: dict[str, Any]) -> Model:
    bands = tuple(values["backbone"]["bands"])
    statistics = BandStatistics(bands, (0.0,) * len(bands), (1.0,) * len(bands), 1)
    return build_training(parse_recipe(values), statistics).model.eval()


def gradients(model: Model, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    torch.nn.functional.cross_entropy(model(images), masks).backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in found.items()}


main()
