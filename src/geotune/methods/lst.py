"""Ladder side-tuning: a small transformer beside the frozen one (arXiv 2206.06522).

    s_i = Block_i(mu_i s_(i-1) + (1 - mu_i) Linear_i(x_i))      mu_i = sigmoid(a_i / T), T = 0.1
    Block(s): s = s + Attention(LN(s)); s = s + MLP(LN(s))      C / r wide
    y_i = x_i + Up_i(s_i)                                       at the levels of the pyramid

x_i is the output of frozen block i; a_i and Up_i start at zero. Our reading: the first rung has
nothing to blend, so s_1 = Block_1(Linear_1(x_1)); the paper hands on the last rung alone, here
each level of the pyramid gets its own. In a hierarchical backbone the stream follows the stages,
by a strided depthwise convolution and a 1x1, and attention stays within windows, because over all
of a map of stride 4 it would be quadratic. The side network starts at random and not from pruned
weights of the backbone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import LstOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import freeze, zero_init
from geotune.methods.core.reader import BlockActivations, Reader, level_indices
from geotune.methods.core.side_network import downsample, require_channels_left, select_blocks

TEMPERATURE = 0.1
WINDOW = 8
HEAD_WIDTH = 16
"""A head is at least so wide, where the stream is."""
MLP_RATIO = 4


LEAST_WIDTH = 8


class Lst(LstOptions, Method):
    """Ladder side-tuning: a small transformer that reads the frozen blocks' outputs."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a reduction that leaves no channel."""
        require_channels_left(backbone, self.reduction)
        freeze(backbone)
        reader = Ladder(backbone, reduction=self.reduction, every=self.block_stride)
        encoder = Encoder(backbone, reader, self, backbone_frozen=True)
        return check_trainable(encoder)


class Ladder(Reader):
    """The side network: a rung for each tap it reads, and what it hands on."""

    recomputable = ("blocks",)

    def __init__(self, backbone: Backbone, *, reduction: int, every: int | None) -> None:
        super().__init__()
        levels = level_indices(backbone)
        self.out_indices = select_blocks(backbone, levels, every)
        self.taps = tuple(backbone.taps[i] for i in levels)
        read = [backbone.taps[i] for i in self.out_indices]
        widths = [max(tap.channels // reduction, min(tap.channels, LEAST_WIDTH)) for tap in read]
        window = None if backbone.is_columnar else WINDOW
        self.down = nn.ModuleList(
            nn.Conv2d(tap.channels, width, 1) for tap, width in zip(read, widths, strict=True)
        )
        self.between = nn.ModuleList(
            downsample(read[i - 1], read[i], widths[i - 1], widths[i]) for i in range(1, len(read))
        )
        self.gates = nn.ParameterList(torch.zeros(()) for _ in read[1:])
        self.blocks = nn.ModuleList(Block(width, window) for width in widths)
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

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the stream and the maps finished so far."""
        stream, maps = (None, ()) if state is None else state
        at = self.out_indices.index(index)
        offered = self.down[at](feature)
        if stream is None:
            stream = offered
        else:
            mu = torch.sigmoid(self.gates[at - 1] / TEMPERATURE)
            stream = mu * self.between[at - 1](stream) + (1 - mu) * offered
        stream = self.blocks[at](stream)
        if str(index) in self.up:
            maps = (*maps, feature + self.up[str(index)](stream))
        return stream, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[1]
        return maps


class Block(nn.Module):
    """A transformer's block on maps, normalised first; attention over windows or the whole map."""

    def __init__(self, width: int, window: int | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, window)
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


class Attention(nn.Module):
    """Of all positions to each other, or of those in a window of `window` x `window`."""

    def __init__(self, width: int, window: int | None) -> None:
        super().__init__()
        self.window = window
        self.heads = heads(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)  # softmax is blind to a bias of the keys
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, h, w, d)` to the same shape."""
        height, width = x.shape[1:3]
        high, wide = self.window or height, self.window or width
        padding = (0, 0, 0, -width % wide, 0, -height % high)
        seen = None
        if any(padding):
            seen = F.pad(x.new_ones(1, height, width, 1), padding)
            seen = to_windows(seen, high, wide)[..., 0].bool()[:, None, None]  # no one sees padding
            seen = seen.repeat(len(x), 1, 1, 1)
        windows = to_windows(F.pad(x, padding), high, wide)
        q, k, v = self.qkv(windows).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        out = self.out(found.transpose(1, 2).flatten(2))
        rows, columns = -(-height // high), -(-width // wide)
        out = out.reshape(len(x), rows, columns, high, wide, -1).transpose(2, 3)
        whole: Tensor = out.reshape(len(x), rows * high, columns * wide, -1)
        return whole[:, :height, :width]


def to_windows(x: Tensor, high: int, wide: int) -> Tensor:
    """`(B, h, w, d)` to `(B windows, high * wide, d)`, those of an image in a row."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // high, high, width // wide, wide, channels)
    return x.transpose(2, 3).reshape(-1, high * wide, channels)


def heads(width: int) -> int:
    """As many heads as divide the width and are not narrower than `HEAD_WIDTH`; at least one."""
    return max(n for n in range(1, max(1, width // HEAD_WIDTH) + 1) if width % n == 0)
