"""Start a narrow transformer block from the most important channels of a frozen one.

Structured pruning by weight magnitude (LST, arXiv 2206.06522): the importance of a channel is the
sum of the absolute weights that read or write it. The channels of the residual stream are the same
in all blocks of a stage; those inside attention and MLP are chosen in each block. A scale after
attention and MLP (LayerScale, arXiv 2103.17239) is part of the weights that write the stream.

Choices of ours: the channels of queries with keys and those of values are chosen over all heads,
apart from each other; biases of queries and values, and norms of queries and keys, are left out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.methods.core.fused_qkv import qkv_layout


class Linear(NamedTuple):
    """A linear map: `(outputs, inputs)` and `(outputs,)`."""

    weight: Tensor
    bias: Tensor | None


class BlockWeights(NamedTuple):
    """The weights and norms of a transformer block; q, k and v are `(outputs, inputs)`."""

    q: Tensor
    k: Tensor
    v: Tensor
    projection: Linear
    fc1: Linear
    fc2: Linear
    norms: tuple[nn.LayerNorm, nn.LayerNorm]


def find_block_weights(backbone: Backbone, index: int) -> BlockWeights | None:
    """Find them by their usual names; None if block `index` is built otherwise."""
    if not backbone.blocks:
        return None
    block, parts = backbone.blocks[index], backbone.block_parts(index)
    if not parts.attention or not parts.mlp:
        return None
    attention, mlp = block.get_submodule(parts.attention), block.get_submodule(parts.mlp)
    found = [getattr(attention, "proj", None)]
    found += [getattr(mlp, name, None) for name in ("fc1", "fc2")]
    norms = [getattr(block, name, None) for name in ("norm1", "norm2")]
    if not all(isinstance(layer, nn.Linear) for layer in found):
        return None
    if not all(isinstance(norm, nn.LayerNorm) for norm in norms):
        return None
    layout = qkv_layout(block, f"{parts.attention}.qkv") if hasattr(attention, "qkv") else None
    if layout is not None:
        qkv = layout.split(attention.qkv.weight.detach())  # type: ignore[union-attr, operator]
    else:
        layers = [getattr(attention, name, None) for name in "qkv"]
        qkv = [layer.weight.detach() for layer in layers if isinstance(layer, nn.Linear)]
    channels = backbone.taps[index].channels
    if len(qkv) != 3 or any(weight.shape != (channels, channels) for weight in qkv):
        return None
    q, k, v = qkv
    projection, fc1, fc2 = found
    if fc2.in_features != fc1.out_features:  # type: ignore[union-attr]  # a gated MLP
        return None
    norm1, norm2 = norms
    return BlockWeights(
        q,
        k,
        v,
        _scaled(projection, getattr(block, "ls1", None)),  # type: ignore[arg-type]
        _scaled(fc1),  # type: ignore[arg-type]
        _scaled(fc2, getattr(block, "ls2", None)),  # type: ignore[arg-type]
        (norm1, norm2),  # type: ignore[arg-type]
    )


@torch.no_grad()
def _scaled(layer: nn.Linear, scale: nn.Module | None = None) -> Linear:
    """A layer followed by a block's LayerScale, if it has one."""
    gamma = getattr(scale, "gamma", None)
    if not isinstance(gamma, Tensor):
        return Linear(layer.weight.detach(), layer.bias)
    bias = None if layer.bias is None else layer.bias * gamma
    return Linear(layer.weight * gamma[:, None], bias)


def important_channels(blocks: list[BlockWeights], count: int) -> Tensor:
    """Indices of the `count` most important channels of the blocks' residual stream, ascending."""
    scores = sum(
        sum(weight.abs().sum(0) for weight in (b.q, b.k, b.v, b.fc1.weight))
        + sum(weight.abs().sum(1) for weight in (b.projection.weight, b.fc2.weight))
        for b in blocks
    )
    assert isinstance(scores, Tensor)
    return _top(scores, count)


def _top(scores: Tensor, count: int) -> Tensor:
    return scores.detach().topk(count).indices.sort().values


class NarrowBlock(NamedTuple):
    """The modules of a narrow block: one layer for queries, keys and values, without bias."""

    qkv: nn.Linear
    projection: nn.Linear
    fc1: nn.Linear
    fc2: nn.Linear
    norms: tuple[nn.LayerNorm, nn.LayerNorm]


@torch.no_grad()
def start_pruned(narrow: NarrowBlock, block: BlockWeights, kept: Tensor) -> None:
    """Copy the weights of the important channels; `kept` are those of the residual stream."""
    width, hidden = len(kept), narrow.fc1.out_features
    inner = _top(block.q.abs().sum(1) + block.k.abs().sum(1), width)
    values = _top(block.v.abs().sum(1) + block.projection.weight.abs().sum(0), width)
    rows = [block.q[inner], block.k[inner], block.v[values]]
    narrow.qkv.weight.copy_(torch.cat(rows)[:, kept])
    hidden_kept = _top(block.fc1.weight.abs().sum(1) + block.fc2.weight.abs().sum(0), hidden)
    for ours, theirs, outputs, inputs in (
        (narrow.projection, block.projection, kept, values),
        (narrow.fc1, block.fc1, hidden_kept, kept),
        (narrow.fc2, block.fc2, kept, hidden_kept),
    ):
        ours.weight.copy_(theirs.weight[outputs][:, inputs])
        if theirs.bias is None:
            nn.init.zeros_(ours.bias)
        else:
            ours.bias.copy_(theirs.bias[outputs])
    for ours_norm, theirs_norm in zip(narrow.norms, block.norms, strict=True):
        ours_norm.weight.copy_(theirs_norm.weight[kept])
        ours_norm.bias.copy_(theirs_norm.bias[kept])
