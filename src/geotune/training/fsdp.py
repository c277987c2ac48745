"""Fully sharded data parallelism: each process holds a shard of every parameter.

PyTorch's `fully_shard` (ZeRO, https://arxiv.org/abs/1910.02054) gathers the parameters of a block
before it runs and frees them afterwards; gradients and optimizer state exist only as shards. All
processes must run the same blocks in the same order, forward and backward.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from geotune.adapter_io import adapter_state
from geotune.model import Model


def shard(model: Model, mesh: DeviceMesh) -> frozenset[str]:
    """Shard a model in place among the processes of a one-dimensional mesh.

    Backbone blocks are gathered one at a time, all other parameters for the whole step, as are
    blocks with parameters that others read, too. Scalar
    parameters cannot be sharded and become vectors of length one; returns their names.
    """
    scalars = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    for name in scalars:
        parent, _, leaf = name.rpartition(".")
        module = model.get_submodule(parent)
        scalar = module.get_parameter(leaf)
        vector = nn.Parameter(scalar.detach().reshape(1), requires_grad=scalar.requires_grad)
        module.register_parameter(leaf, vector)
    modules = set(model.modules())  # without the backbone if its features are cached
    blocks = [block for block in model.encoder.backbone.blocks if block in modules]
    shared = _shared_parameters(blocks)
    for block in blocks:
        if shared.isdisjoint(block.parameters()):
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return frozenset(scalars)


def _shared_parameters(blocks: Sequence[nn.Module]) -> set[nn.Parameter]:
    """Parameters that several blocks read: no single one of them may gather and free them."""
    count = Counter(parameter for block in blocks for parameter in {*block.parameters()})
    shared = {parameter for parameter, number in count.items() if number > 1}
    for block in blocks:
        for module in block.modules():
            if getattr(module, "geotune_shared", False):
                shared |= {*module.parameters()}
    return shared


def is_sharded(model: Model) -> bool:
    """Whether the model is sharded."""
    return isinstance(model, FSDPModule)


def full_state_dict(model: Model) -> dict[str, Tensor]:
    """The trained tensors, see `adapter_state`; must be called by all processes.

    Sharded tensors are gathered on the CPU of the main process only.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # parameters that validation gathered
    state = {}
    for name, tensor in adapter_state(model).items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()  # one at a time: all together may not fit
            if torch.distributed.get_rank():
                continue
            tensor = tensor.cpu()
        state[name] = tensor
    return state
