"""SHERL: features of early blocks are merged by their redundancy, late blocks run on the result
(ECCV 2024, arXiv 2407.07523).

    z_i   = LN(W_i x_i)                                    early blocks 1 ... M, C -> d
    rho_i = sum_j relu(cos(z_i, z_j))                      redundancy, i and j < M
    a_i   = l1_i(relu(w . (z_i * z_M) + b) / rho_i)
    s     = z_M + sum_i a_i z_i
    x'_M  = LN(W relu(s)) + tanh(g / 0.1) x_M              g starts at zero
    x_(M+1) = block(x'_M), ...                             the frozen late blocks

Everything is per position. Gradients cross the late blocks only. As in the paper, x'_M does not
start at the frozen features. Class and register tokens enter the late blocks unchanged; levels of
the pyramid before block M are the frozen features. Plain ViTs only. A choice of ours: b starts at
one, so that every early block has a weight, without which it would receive no gradient.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import SherlOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ModuleWrapper,
    add_shared_part,
    block_widths,
    freeze,
    replace_module,
    require_plain_vit,
    require_spatial_tokens,
)
from geotune.methods.core.method_errors import option_error
from geotune.methods.core.side_network import LayerNorm2d, check_reduction, side_width

TEMPERATURE = 0.1


class Sherl(SherlOptions, Method):
    """Merged features of the early blocks are the input of the frozen late blocks."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_plain_vit(backbone, "sherl")
        require_spatial_tokens(backbone, "sherl")
        check_reduction(backbone, self.reduction)
        depth = len(backbone.blocks)
        early = depth - (self.late_blocks or max(1, depth // 6))
        if early < 1:
            problem = f"{backbone.name} has {depth} blocks, of which one or more must be early ones"
            raise option_error(
                "late_blocks", self.late_blocks, f"{problem}; choose at most {depth - 1}"
            )
        freeze(backbone)
        channels = block_widths(backbone)[0]
        width = side_width(channels, self.reduction)
        merging = RedundancyMerging(channels, width, early)
        for index, block in enumerate(backbone.blocks[:early]):
            replace_module(backbone, block, _EarlyBlock(block, backbone, merging, index))
        block = backbone.blocks[early]
        replace_module(backbone, block, _FirstLateBlock(block, backbone, merging, early))
        add_shared_part(backbone, merging)
        return checked_encoder(backbone, self)


class RedundancyMerging(nn.Module):
    """What trains; `collected` are every z_i of one forward pass so far."""

    def __init__(self, channels: int, width: int, early: int) -> None:
        super().__init__()
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, width, 1), LayerNorm2d(width)) for _ in range(early)
        )
        self.guide = nn.Conv2d(width, 1, 1)
        nn.init.ones_(self.guide.bias)  # type: ignore[arg-type]
        self.guide.requires_grad_(early > 2)  # weights of none or one are constant
        self.gate = nn.Parameter(torch.zeros(()))
        self.up = nn.Sequential(nn.Conv2d(width, channels, 1), LayerNorm2d(channels))
        self.collected: list[Tensor] = []

    def collect(self, index: int, x: Tensor) -> None:
        """Read the output of an early block, `(B, C, h, w)`."""
        if index == 0:
            self.collected.clear()
        self.collected.append(self.down[index](x))

    def forward(self, x: Tensor) -> Tensor:
        """Output of the last early block to the input of the late ones, `(B, C, h, w)`."""
        *shallow, last = self.collected
        self.collected.clear()
        merged = last + self._weighted_sum(torch.stack(shallow, 1), last) if shallow else last
        out: Tensor = self.up(torch.relu(merged)) + torch.tanh(self.gate / TEMPERATURE) * x
        return out

    def _weighted_sum(self, z: Tensor, last: Tensor) -> Tensor:
        """`(B, i, d, h, w)` and z_M `(B, d, h, w)` to sum_i a_i z_i `(B, d, h, w)`."""
        unit = F.normalize(z, dim=2)
        redundancy = torch.relu(torch.einsum("bidhw,bjdhw->bijhw", unit, unit)).sum(2)
        guided = self.guide((z * last[:, None]).flatten(0, 1)).unflatten(0, z.shape[:2])
        weights = F.normalize(torch.relu(guided[:, :, 0]) / redundancy, p=1, dim=1)
        return torch.einsum("bihw,bidhw->bdhw", weights.to(z.dtype), z)


class _EarlyBlock(ModuleWrapper):
    """A block whose output the merging reads."""

    has_side_effects = True

    def __init__(
        self, inner: nn.Module, backbone: Backbone, merging: RedundancyMerging, index: int
    ) -> None:
        super().__init__(inner)
        self._backbone, self._merging = [backbone], [merging]  # in lists, so no submodules
        self.index = index

    def forward(self, *inputs: Any, **named: Any) -> Tensor:
        out: Tensor = self.inner(*inputs, **named)
        maps = self._backbone[0].tokens_to_maps(self.index, out).maps
        self._merging[0].collect(self.index, maps)
        return out


class _FirstLateBlock(ModuleWrapper):
    """The block that runs on the merged features."""

    has_side_effects = True

    def __init__(
        self, inner: nn.Module, backbone: Backbone, merging: RedundancyMerging, index: int
    ) -> None:
        super().__init__(inner)
        self._backbone, self._merging = [backbone], [merging]
        self.index = index

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        spatial = self._backbone[0].tokens_to_maps(self.index, x)
        out: Tensor = self.inner(spatial.restore(self._merging[0](spatial.maps)), *inputs, **named)
        return out
