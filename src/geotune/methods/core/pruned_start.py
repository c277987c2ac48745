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


class BlockWeights(NamedTuple):
    """Linear layers and norms of a transformer block; q, k and v are `(outputs, inputs)`.

    `scales`: what multiplies the outputs of attention and MLP, `(C,)` each.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    projection: nn.Linear
    fc1: nn.Linear
    fc2: nn.Linear
    norms: tuple[nn.LayerNorm, nn.LayerNorm]
    scales: tuple[Tensor, Tensor]


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
    scales = (_scale(block, "ls1", q), _scale(block, "ls2", q))
    return BlockWeights(q, k, v, projection, fc1, fc2, (norm1, norm2), scales)  # type: ignore[arg-type]


def _scale(block: nn.Module, name: str, weight: Tensor) -> Tensor:
    """The factors of a block's LayerScale; ones, as many as `weight` has rows, without one."""
    gamma = getattr(getattr(block, name, None), "gamma", None)
    return gamma.detach() if isinstance(gamma, Tensor) else weight.new_ones(len(weight))


def important_channels(blocks: list[BlockWeights], count: int) -> Tensor:
    """Indices of the `count` most important channels of the blocks' residual stream, ascending."""
    scores = sum(
        sum(weight.abs().sum(0) for weight in (b.q, b.k, b.v, b.fc1.weight))
        + sum(
            layer.weight.abs().sum(1) * scale.abs()
            for layer, scale in zip((b.projection, b.fc2), b.scales, strict=True)
        )
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
    after_attention, after_mlp = (scale[kept] for scale in block.scales)
    for ours, theirs, outputs, inputs, scale in (
        (narrow.projection, block.projection, kept, values, after_attention),
        (narrow.fc1, block.fc1, hidden_kept, kept, block.q.new_ones(hidden)),
        (narrow.fc2, block.fc2, kept, hidden_kept, after_mlp),
    ):
        ours.weight.copy_(theirs.weight[outputs][:, inputs] * scale[:, None])
        ours.bias.copy_(0 if theirs.bias is None else theirs.bias[outputs] * scale)
    for ours_norm, theirs_norm in zip(narrow.norms, block.norms, strict=True):
        ours_norm.weight.copy_(theirs_norm.weight[kept])
        ours_norm.bias.copy_(theirs_norm.bias[kept])
