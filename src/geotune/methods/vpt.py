"""Visual prompt tuning (arXiv 2203.12119): learned tokens beside those of the image.

    deep:     [_, x_i]   = block_i([p_i, x_(i-1)])                new prompts for every block
    shallow:  [z_i, x_i] = block_i([z_(i-1), x_(i-1)]), z_0 = p   prompts go along with the image

Prompts start uniform in +-sqrt(6 / (3 P^2 + C)), P being the patch, as in the paper; the defaults
are those of arXiv 2504.17397: deep, 100 prompts, dropout 0.1. A block's prompts are taken away
from its output, so that nothing outside the blocks sees them. They stand in front of all other
tokens, where rotary positions do not count them. Attention that adds something for each pair of
places has nothing for them; such backbones are refused, as one small pass finds out.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.config.method_options import VptOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Method
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.gradient_check import check_trainable
from geotune.methods.core.injection import Wrapped, freeze, inject, inserted, require_plain, widths
from geotune.methods.core.reader import SelectedFeatures


class Vpt(VptOptions, Method):
    """Learned prompt tokens beside the image's own in a plain ViT's blocks."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` where the blocks take no further tokens."""
        require_plain(backbone, "vpt")
        freeze(backbone)
        pixels = backbone.taps[0].stride ** 2
        along = Along() if self.depth == "shallow" else None
        wrapped: list[Prompted] = []
        for block, channels in zip(backbone.blocks, widths(backbone), strict=True):
            own = None
            if along is None or not wrapped:
                own = Prompts(self.num_prompts, channels, pixels, self.dropout)
            wrapped.append(Prompted(block, own, self.num_prompts, along))
            inject(backbone, block, wrapped[-1])
        wrapped[-1].last = True
        levels = SelectedFeatures(backbone)
        encoder = Encoder(backbone, levels, self, backbone_frozen=False)
        try:
            return check_trainable(encoder)
        except Exception as error:
            for block in wrapped:
                inject(backbone, block, block.without_prompts())
            if isinstance(error, GeotuneError):
                raise
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise GeotuneError(
                f"vpt on {backbone.name}: its blocks take no tokens beside those of the image, as "
                f"where attention adds something for each pair of places ({type(error).__name__}: "
                f"{reason}); choose lora, adapter or est"
            ) from error


class Prompts(nn.Module):
    """Learned tokens of one block."""

    def __init__(self, count: int, channels: int, pixels: float, dropout: float) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * pixels + channels))
        self.tokens = nn.Parameter(torch.empty(count, channels).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int) -> Tensor:
        """`(B, prompts, C)`."""
        tokens: Tensor = self.dropout(self.tokens.expand(batch, -1, -1))
        return tokens


class Along:
    """What the shallow form carries from block to block, during one pass through them."""

    tokens: Tensor | None = None


class Prompted(Wrapped):
    """A block that is given prompts in front of its tokens, and does not hand them on.

    Without prompts of its own it takes those that come along.
    """

    carries = True
    last = False
    """Nothing goes along behind it."""

    def __init__(
        self, inner: nn.Module, prompts: Prompts | None, count: int, along: Along | None
    ) -> None:
        super().__init__(inner)
        self.part = None if prompts is None else inserted(prompts)
        self.count = count
        self._along = along
        self._shift_positions(count)

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """As the block inside, on tokens `(B, N, C)`."""
        along = self._along
        prompts = self.part(len(x)) if self.part is not None else along and along.tokens
        assert isinstance(prompts, Tensor)
        out: Tensor = self.inner(torch.cat([prompts.to(x.dtype), x], 1), *inputs, **named)
        if along is not None:
            along.tokens = None if self.last else out[:, : self.count]
        return out[:, self.count :]

    def without_prompts(self) -> nn.Module:
        """The block as it was."""
        self._shift_positions(-self.count)
        return self.inner

    def _shift_positions(self, count: int) -> None:
        """Count prompts among the tokens in front that rotary positions leave out."""
        for module in self.inner.modules():
            values: dict[str, Any] = vars(module)
            if "num_prefix_tokens" in values:
                values["num_prefix_tokens"] += count
