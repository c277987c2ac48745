"""E3VA: adapters on a highway parallel to the frozen blocks (arXiv 2306.09729).

    e = e + A_attention(attention_i) + A_mlp(mlp_i)        beside every block i
    e = D(x + e) - D(x)                                    where the backbone downsamples by D
    y = Norm(x + e)                                        at the levels of the pyramid
    A(u) = Up(GELU(Down(u)))                               low-rank; Up starts at zero

      frozen block i:   x --> + attention_i --> + mlp_i --> x
                               |                 |
                          A_attention          A_mlp
                               |                 |
      highway:          e ---> + --------------> + -------> e

x is the frozen map (at the last level after the backbone's final norm, if any); attention_i and
mlp_i are what block i adds to it. Gradients flow along the highway only, and through the backbone's
own downsampling layers, which stay frozen. The paper inherits those layers and ends the highway in
a trainable norm before the neck. Choices of ours: e is the difference that the layers make for
x + e, so it is zero if the adapters are; plain low-rank adapters, and their rank. Blocks with an
MLP alone (ConvNeXt) have one adapter. Because of the norm, training does not start at `frozen`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import E3vaOptions
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    block_widths,
    check_width,
    freeze,
    require_blocks,
    require_spatial_tokens,
    zero_init,
)
from geotune.methods.core.method_errors import unsupported_error
from geotune.methods.core.reader import BlockActivations, Reader, ReaderInput, level_indices
from geotune.methods.core.side_network import LayerNorm2d, match_tap_shape


class E3va(E3vaOptions, Method):
    """Low-rank adapters on a parallel highway, fed by attention and MLP of each block."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        require_blocks(backbone, "e3va")
        require_spatial_tokens(backbone, "e3va")
        check_width("rank", self.rank, backbone)
        strides = [tap.stride for tap in backbone.taps]
        for index, stride in enumerate(strides):
            problem = None
            if backbone.block_parts(index).mlp is None:
                problem = "its blocks have neither attention nor an MLP to read"
            elif stride != strides[max(0, index - 1)] and backbone.downsample_before(index) is None:
                problem = f"it has no downsampling layer before {backbone.taps[index].name}"
            if problem:
                raise unsupported_error("e3va", backbone.name, f"{problem}; choose est or lst")
        freeze(backbone)
        return checked_encoder(backbone, self, Highway(backbone, self.rank), backbone_frozen=True)


class Highway(Reader):
    """The stream e of the adapters, parallel to the frozen one."""

    def __init__(self, backbone: Backbone, rank: int) -> None:
        super().__init__()
        self._backbone = [backbone]  # in a list, so that it is no submodule
        self.levels = tuple(level_indices(backbone))
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = tuple(backbone.taps[i] for i in self.levels)
        self.attention = nn.ModuleDict()
        self.mlp = nn.ModuleDict()
        for index, width in enumerate(block_widths(backbone)):
            if backbone.block_parts(index).middle is not None:
                self.attention[str(index)] = E3vaAdapter(width, rank)
            self.mlp[str(index)] = E3vaAdapter(width, rank)
        self.norms = nn.ModuleDict(
            {str(i): LayerNorm2d(backbone.taps[i].channels) for i in self.levels}
        )

    def use_backbone(self, backbone: Backbone) -> None:
        """See `Reader.use_backbone`."""
        self._backbone = [backbone]

    def required_inputs(self, index: int) -> tuple[ReaderInput, ...]:
        """See `Reader.required_inputs`. Taps are read at the levels and before downsampling."""
        is_last = index + 1 == len(self.out_indices)
        downsampled = not is_last and self._backbone[0].downsample_before(index + 1) is not None
        internals: tuple[ReaderInput, ...] = ("attention", "mlp")
        return ("feature", *internals) if index in self.levels or downsampled else internals

    def shared_layers(self) -> list[nn.Module]:
        """See `Reader.shared_layers`."""
        layers = (self._backbone[0].downsample_before(index) for index in self.out_indices)
        return [layer for layer in layers if layer is not None]

    def step(
        self, state: Any, index: int, feature: Tensor, activations: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the highway, the previous tap, and the maps so far."""
        assert activations is not None and activations.mlp is not None
        highway, previous, maps = (None, feature, ()) if state is None else state
        change = self.mlp[str(index)](activations.mlp)
        if activations.attention is not None:
            change = change + self.attention[str(index)](activations.attention)
        if highway is None:
            highway = change
        else:
            highway = self.downsample_highway(index, previous, highway) + change
        if index in self.levels:
            maps = (*maps, self.norms[str(index)](feature + match_tap_shape(highway, feature)))
        return highway, feature, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[2]
        return maps

    def downsample_highway(self, index: int, frozen: Tensor, highway: Tensor) -> Tensor:
        """`D(x + e) - D(x)` before block `index`, if the backbone downsamples there by D.

        In float32: of a small e, the difference of two bfloat16 maps is rounding noise.
        """
        backbone = self._backbone[0]
        layer = backbone.downsample_before(index)
        if layer is None:
            return highway

        def downsample(maps: Tensor) -> Tensor:
            if backbone.channels_last:
                out: Tensor = layer(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            else:
                out = layer(maps)
            return out

        with torch.autocast(frozen.device.type, enabled=False):
            frozen, highway = frozen.float(), highway.float()
            with torch.no_grad():
                start = downsample(frozen)
            return downsample(frozen + highway) - start


class E3vaAdapter(nn.Module):
    """`Up(GELU(Down(u)))` at every pixel of a map."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1)
        self.up = zero_init(nn.Conv2d(rank, channels, 1))

    def forward(self, u: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        out: Tensor = self.up(F.gelu(self.down(u)))
        return out
