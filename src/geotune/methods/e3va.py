"""E3VA: adapters on a highway parallel to the blocks (arXiv 2306.09729).

    e = e + A_attention(attention_i) + A_mlp(mlp_i)        beside every block i
    e = D(x + e) - D(x)                                    where the backbone merges patches by D
    y = Norm(x + e)                                        at the levels of the pyramid
    A(u) = Up(GELU(Down(u)))                               low-rank; Up starts at zero

x is the frozen map at that place (that of the last level after the backbone's final normalisation,
where it has one), attention_i and mlp_i what block i adds to it. The gradient runs along the
highway only, and through the backbone's own down-sampling layers, which stay frozen. The paper
inherits those layers and ends the highway in a trainable norm before the neck; that e is the
difference which they make of x + e, and so zero where the adapters are, is our reading, as are the
plain low-rank adapters and their rank. A block with an MLP alone (ConvNeXt) has one adapter. The
norm keeps training from starting at `frozen`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import E3vaOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import (
    check_width,
    freeze,
    require_blocks,
    require_places,
    widths,
    zero_init,
)
from geotune.methods.core.reader import BlockActivations, Part, Reader, level_indices
from geotune.methods.core.side_network import LayerNorm2d, as_feature


class E3va(E3vaOptions, Method):
    """Low-rank adapters on a highway beside the blocks, fed by attention and MLP."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`.

        Raises `GeotuneError` for blocks without an MLP, stages without a down-sampling layer
        between them, and a rank wider than the stream.
        """
        require_blocks(backbone, "e3va")
        require_places(backbone, "e3va")
        check_width("rank", self.rank, backbone)
        strides = [tap.stride for tap in backbone.taps]
        for index, stride in enumerate(strides):
            if backbone.block_parts(index).mlp is None:
                raise GeotuneError(
                    f"e3va on {backbone.name}: its blocks have neither attention nor an MLP whose "
                    "output the highway could read; choose est or lst"
                )
            if stride != strides[max(0, index - 1)] and backbone.downsample_before(index) is None:
                raise GeotuneError(
                    f"e3va on {backbone.name}: has no down-sampling layer before "
                    f"{backbone.taps[index].name} that the highway could use; choose est or lst"
                )
        freeze(backbone)
        reader = Highway(backbone, self.rank)
        encoder = Encoder(backbone, reader, self, backbone_frozen=True)
        return check_trainable(encoder)


class Highway(Reader):
    """The error stream beside the frozen one."""

    def __init__(self, backbone: Backbone, rank: int) -> None:
        super().__init__()
        self._backbone = [backbone]  # not a second owner
        self.levels = tuple(level_indices(backbone))
        self.out_indices = self.internals_at = tuple(range(len(backbone.taps)))
        self.taps = tuple(backbone.taps[i] for i in self.levels)
        self.attention = nn.ModuleDict()
        self.mlp = nn.ModuleDict()
        for index, width in enumerate(widths(backbone)):
            if backbone.block_parts(index).middle is not None:
                self.attention[str(index)] = E3vaAdapter(width, rank)
            self.mlp[str(index)] = E3vaAdapter(width, rank)
        self.norms = nn.ModuleDict(
            {str(i): LayerNorm2d(backbone.taps[i].channels) for i in self.levels}
        )

    def required_inputs(self, index: int) -> tuple[Part, ...]:
        """See `Reader.required_inputs`: the map at the levels, and where patches are merged after it."""
        depth = len(self.out_indices)
        merged = index + 1 < depth and self._backbone[0].downsample_before(index + 1) is not None
        inside: tuple[Part, ...] = ("attention", "mlp")
        return ("feature", *inside) if index in self.levels or merged else inside

    def shared_layers(self) -> list[nn.Module]:
        """See `Reader.shared_layers`."""
        layers = (self._backbone[0].downsample_before(index) for index in self.out_indices)
        return [layer for layer in layers if layer is not None]

    def step(
        self, state: Any, index: int, feature: Tensor, inside: BlockActivations | None = None
    ) -> Any:
        """See `Reader.step`. The state is the highway, the last tap, and the maps finished."""
        assert inside is not None and inside.mlp is not None
        highway, last, maps = (None, feature, ()) if state is None else state
        change = self.mlp[str(index)](inside.mlp)
        if inside.attention is not None:
            change = change + self.attention[str(index)](inside.attention)
        highway = change if highway is None else self.merged(index, last, highway) + change
        if index in self.levels:
            maps = (*maps, self.norms[str(index)](feature + as_feature(highway, feature)))
        return highway, feature, maps

    def finish(self, state: Any) -> tuple[Tensor, ...]:
        """See `Reader.finish`."""
        maps: tuple[Tensor, ...] = state[2]
        return maps

    def merged(self, index: int, frozen: Tensor, highway: Tensor) -> Tensor:
        """The highway before block `index`, as the backbone's own layer brings it there."""
        backbone = self._backbone[0]
        layer = backbone.downsample_before(index)
        if layer is None:
            return highway

        def down(maps: Tensor) -> Tensor:
            if backbone.channels_last:
                out: Tensor = layer(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            else:
                out = layer(maps)
            return out

        with torch.no_grad():
            start = down(frozen)
        return down(frozen + highway) - start


class E3vaAdapter(nn.Module):
    """`Up(GELU(Down(u)))` at every position of a map."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, rank, 1)
        self.up = zero_init(nn.Conv2d(rank, channels, 1))

    def forward(self, u: Tensor) -> Tensor:
        """`(B, C, h, w)` to the same shape."""
        out: Tensor = self.up(F.gelu(self.down(u)))
        return out
