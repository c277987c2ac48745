"""A model parted among processes, each of which keeps a share of every parameter.

Fully sharded data parallelism (ZeRO, https://arxiv.org/abs/1910.02054), as PyTorch's `fully_shard`
does it: before a block runs its parameters are brought together, and let go of after it; gradients
and the optimizer's state exist as shares only. All processes have to run the same blocks in the
same order, forward and back.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from geotune.adapter_io import adapter_state
from geotune.model import Model


def shard(model: Model, mesh: DeviceMesh) -> frozenset[str]:
    """Part a model among the processes of a mesh of one dimension, in place and for good.

    The backbone's blocks are brought together one at a time, all else for the whole step. Single
    numbers cannot be parted and become vectors of one; returns the names of these parameters.
    """
    if mesh.device_type == "cuda":  # as with DDP, batch norm sees the batch of all processes
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    numbers = [name for name, parameter in model.named_parameters() if parameter.ndim == 0]
    for name in numbers:
        owner, _, own_name = name.rpartition(".")
        module = model.get_submodule(owner)
        number = module.get_parameter(own_name)
        vector = nn.Parameter(number.detach().reshape(1), requires_grad=number.requires_grad)
        module.register_parameter(own_name, vector)
    there = set(model.modules())  # without the backbone where its features are kept
    for block in model.encoder.backbone.blocks:
        if block in there:
            fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return frozenset(numbers)


def is_sharded(model: Model) -> bool:
    """Whether the model is parted among processes."""
    return isinstance(model, FSDPModule)


def full_state_dict(model: Model) -> dict[str, Tensor]:
    """What training changed, as `adapter_state` gives it; every process has to call it.

    What is parted comes as whole tensors, on the CPU of the main process alone.
    """
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # what validation has brought together
    whole = {}
    for name, tensor in adapter_state(model).items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()  # one at a time: all of them may have no room
            if torch.distributed.get_rank():
                continue
            tensor = tensor.cpu()
        whole[name] = tensor
    return whole
