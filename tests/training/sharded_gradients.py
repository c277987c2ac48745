"""Run in each of two processes by `test_fsdp.py`: compare a sharded with an unsharded model.

Takes recipes as a JSON list; prints the largest differences for each of them.
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
    errors = [differences(values, mesh) for values in json.loads(sys.argv[1])]
    if dist.get_rank() == 0:
        print(json.dumps(errors))
    dist.destroy_process_group()


def differences(values: dict[str, Any], mesh: Any) -> dict[str, float]:
    rank, random = dist.get_rank(), torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 64, 64, generator=random)
    masks = torch.randint(0, 2, (4, 64, 64), generator=random)
    own = slice(2 * rank, 2 * rank + 2)

    unsharded, sharded = build(values), build(values)
    before = {name: tensor.clone() for name, tensor in full_state_dict(unsharded).items()}
    scalars = shard(sharded, mesh)
    expected = gradients(unsharded, images, masks)
    actual = gradients(sharded, images[own], masks[own])
    assert actual.keys() == expected.keys()
    with torch.no_grad():
        outputs = [model.eval()(images) for model in (unsharded, sharded)]
    state = full_state_dict(sharded)
    if rank == 0:
        assert state.keys() == before.keys()
        for name, tensor in before.items():
            assert torch.equal(state[name].reshape(tensor.shape), tensor), name
    size = max(float(gradient.abs().max()) for gradient in expected.values())
    return {
        "gradients": max(
            float((actual[name].reshape(expected[name].shape) - expected[name]).abs().max())
            for name in expected
        )
        / size,
        "outputs": float((outputs[0] - outputs[1]).abs().max()),
        "scalars": len(scalars),
    }


def build(values: dict[str, Any]) -> Model:
    bands = tuple(values["backbone"]["bands"])
    statistics = BandStatistics(bands, (0.0,) * len(bands), (1.0,) * len(bands), 1)
    return build_training(parse_recipe(values), statistics).model.eval()


def gradients(model: Model, images: Tensor, masks: Tensor) -> dict[str, Tensor]:
    torch.nn.functional.cross_entropy(model(images), masks).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if isinstance(g, DTensor) else g for n, g in grads.items()}


main()
