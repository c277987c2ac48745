"""Ladder side-tuning: a small transformer beside the frozen one (arXiv 2206.06522).

    s_i = Block_i(mu_i s_(i-1) + (1 - mu_i) Linear_i(x_i))      mu_i = sigmoid(a_i / T), T = 0.1
    Block(s): s = s + Attention(LN(s)); s = s + MLP(LN(s))      C / r wide
    y_i = x_i + Up_i(s_i)                                       at the levels of the pyramid

      frozen block 1 --> x_1 --> frozen block 2 --> x_2 --> ...
                          |                          |
                       Linear_1                   Linear_2
                          |                          |
                        Block_1 ------ s_1 ------> Block_2 --> s_2 --> ...

x_i is the output of frozen block i; a_i and Up_i start at zero. Choices of ours: the first rung has
nothing to blend, s_1 = Block_1(Linear_1(x_1)). The paper outputs the last rung alone; here each
level of the pyramid has its output. In a hierarchical backbone a strided depthwise convolution and
a 1x1 connect the stages, and attention is restricted to windows, because it would be quadratic in
the pixels of a map of stride 4. With `init: pruned`, as in the paper, blocks and Linear_i start
from the backbone's most important channels (`core/pruned_start.py`), otherwise from random weights.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import LstOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import freeze, zero_init
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.pruned_start import (
    NarrowBlock,
    find_block_weights,
    important_channels,
    start_pruned,
)
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import (
    check_reduction,
    downsample,
    select_blocks,
    side_width,
)

TEMPERATURE = 0.1
WINDOW = 8
MIN_HEAD_WIDTH = 16
MLP_RATIO = 4


class Lst(LstOptions, Method):
    """Ladder side-tuning: a small transformer on the outputs of the frozen blocks."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        check_reduction(backbone, self.reduction)
        freeze(backbone)
        reader = Ladder(backbone, reduction=self.reduction, block_stride=self.block_stride)
        if self.init == "pruned":
            reader.start_pruned(backbone, self.reduction)
        return checked_encoder(backbone, self, reader, backbone_frozen=True)


class Ladder(Reader):
    """The side network: one rung for each tap that it reads."""

    recomputable = ("blocks",)

    def __init__(self, backbone: Backbone, *, reduction: int, block_stride: int | None) -> None:
        super().__init__()
        levels = level_indices(backbone)
        self.out_indices = select_blocks(backbone, levels, block_stride)
        self.taps = tuple(backbone.taps[i] for i in levels)
        inputs = [backbone.taps[i] for i in self.out_indices]
        widths = [side_width(tap.channels, reduction) for tap in inputs]
        window = None if backbone.is_plain_vit else WINDOW
        self.down = nn.ModuleList(
            nn.Conv2d(tap.channels, width, 1) for tap, width in zip(inputs, widths, strict=True)
        )
        self.between = nn.ModuleList(
            downsample(inputs[i - 1], inputs[i], widths[i - 1], widths[i])
            for i in range(1, len(inputs))
        )
        self.gates = nn.ParameterList(torch.zeros(()) for _ in inputs[1:])
        self.blocks = nn.ModuleList(LadderBlock(width, window) for width in widths)
        self.up = nn.ModuleDict(
            {
                str(level): zero_init(
                    nn.Conv2d(
                        widths[self.out_indices.index(level)], backbone.taps[level].channels, 1
                    )
                )
                for level in levels
            }
        )

    @torch.no_grad()
    def start_pruned(self, backbone: Backbone, reduction: int) -> None:
        """Start projections and blocks from the backbone's most important channels.

        Raises `GeotuneError` if the backbone's blocks are no usual transformer blocks, or their MLP
        is narrower than that of the side network.
        """
        if backbone.timesteps > 1 and backbone.combine == "concat":
            raise GeotuneError(
                "method.init pruned: with backbone.combine concat the outputs of a block are those "
                "of all dates, but its weights are of one; use combine: mean, or init: random",
                code="method-unsupported",
                key="backbone.combine",
            )
        weights = {i: find_block_weights(backbone, i) for i in range(len(backbone.taps))}
        usable = {i: block for i, block in weights.items() if block is not None}
        if len(usable) < len(weights):
            raise GeotuneError(
                f"method.init pruned: the blocks of {backbone.name} are not all transformer blocks "
                "with the layers qkv (or q, k, v), proj, fc1, fc2 and two norms; use random",
                code="method-unsupported",
                key="method.init",
            )
        for rung, index in enumerate(self.out_indices):
            down, block = self.down[rung], self.blocks[rung]
            assert isinstance(down, nn.Conv2d) and isinstance(block, LadderBlock)
            own, hidden = block.mlp[0].out_features, len(usable[index].fc1.weight)
            if own > hidden:  # type: ignore[operator]
                problem = (
                    f"with init: pruned, an MLP of the side network would have {own} channels, "
                    f"more than the {hidden} of {backbone.name}; choose more, or init: random"
                )
                raise option_error("reduction", reduction, problem)
            stage = next(stage for stage in backbone.stages if index in stage)
            kept = important_channels([usable[i] for i in stage], down.out_channels)
            down.weight.zero_()
            down.weight[torch.arange(len(kept)), kept] = 1
            down.bias.zero_()  # type: ignore[union-attr]
            narrow = NarrowBlock(
                block.attention.qkv,
                block.attention.out,
                block.mlp[0],  # type: ignore[arg-type]
                block.mlp[2],  # type: ignore[arg-type]
                (block.norm1, block.norm2),
            )
            start_pruned(narrow, usable[index], kept)

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the side stream and the maps so far."""
        stream, maps = (None, ()) if state is None else state
        rung = self.out_indices.index(index)
        projected = self.down[rung](feature)
        if stream is None:
            stream = projected
        else:
            mu = torch.sigmoid(self.gates[rung - 1] / TEMPERATURE)
            stream = mu * self.between[rung - 1](stream) + (1 - mu) * projected
        stream = self.blocks[rung](stream)
        if str(index) in self.up:
            maps = (*maps, feature + self.up[str(index)](stream))
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


class LadderBlock(nn.Module):
    """A pre-norm transformer block on maps, with attention over windows or the whole map."""

    def __init__(self, width: int, window: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = LadderAttention(width, window)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )

    def forward(self, s: Tensor) -> Tensor:
        """`(B, d, h, w)` to the same shape."""
        x = s.permute(0, 2, 3, 1)
        x = x + self.attention(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        out: Tensor = x.permute(0, 3, 1, 2)
        return out


class LadderAttention(nn.Module):
    """Self-attention over the whole map, or within windows of `window` x `window`."""

    def __init__(self, width: int, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.heads = num_heads(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # softmax cancels a bias of the keys
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, h, w, d)` to the same shape."""
        height, width = x.shape[1:3]
        window_height, window_width = self.window or height, self.window or width
        padding = (0, 0, 0, -width % window_width, 0, -height % window_height)
        mask = None
        if any(padding):  # hide the padding
            mask = F.pad(x.new_ones(1, height, width, 1), padding)
            mask = window_partition(mask, window_height, window_width)[..., 0].bool()[:, None, None]
            mask = mask.repeat(x.shape[0], 1, 1, 1)
        windows = window_partition(F.pad(x, padding), window_height, window_width)
        q, k, v = self.qkv(windows).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        out = self.out(attended.transpose(1, 2).flatten(2))
        rows, columns = -(-height // window_height), -(-width // window_width)
        out = out.reshape(x.shape[0], rows, columns, window_height, window_width, -1).transpose(
            2, 3
        )
        merged: Tensor = out.reshape(x.shape[0], rows * window_height, columns * window_width, -1)
        return merged[:, :height, :width]


def window_partition(x: Tensor, window_height: int, window_width: int) -> Tensor:
    """`(B, h, w, d)` to `(B windows, pixels of a window, d)`, image by image."""
    batch, height, width, channels = x.shape
    rows, columns = height // window_height, width // window_width
    x = x.reshape(batch, rows, window_height, columns, window_width, channels)
    return x.transpose(2, 3).reshape(-1, window_height * window_width, channels)


def num_heads(width: int) -> int:
    """Largest divisor of the width with heads of at least `MIN_HEAD_WIDTH`; at least one."""
    return max(n for n in range(1, max(1, width // MIN_HEAD_WIDTH) + 1) if width % n == 0)
