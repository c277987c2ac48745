"""Visual prompt tuning: learned tokens in the blocks of a plain ViT (arXiv 2203.12119).

    deep:     [_, x_i]   = block_i([p_i, x_(i-1)])                each block has its own prompts
    shallow:  [z_i, x_i] = block_i([z_(i-1), x_(i-1)]), z_0 = p   prompts pass through all blocks

Prompts are initialised uniformly in +-sqrt(6 / (3 P^2 + C)), with patch size P, as in the paper.
The defaults are those of arXiv 2504.17397: deep, 100 prompts, dropout 0.1. Prompts come before all
other tokens, are excluded from rotary position embeddings, and are removed from each block's
output, so that nothing outside the blocks sees them. Attention with a bias for each pair of
positions has none for prompts; such backbones are rejected, based on a small forward pass.
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
from geotune.methods.core.gradient_check import checked_encoder
from geotune.methods.core.injection import (
    ModuleWrapper,
    block_widths,
    freeze,
    mark_inserted,
    replace_module,
    require_plain_vit,
)
from geotune.methods.core.method_errors import unsupported_error


class Vpt(VptOptions, Method):
    """Learned prompt tokens beside the image's tokens in the blocks of a plain ViT."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Restores the backbone if its blocks accept no further tokens."""
        require_plain_vit(backbone, "vpt")
        freeze(backbone)
        pixels = backbone.taps[0].stride ** 2
        carried = CarriedPrompts() if self.depth == "shallow" else None
        wrapped: list[PromptedBlock] = []
        for block, channels in zip(backbone.blocks, block_widths(backbone), strict=True):
            prompts = None
            if carried is None or not wrapped:
                prompts = Prompts(self.num_prompts, channels, pixels, self.dropout)
            wrapped.append(PromptedBlock(block, prompts, self.num_prompts, carried))
            replace_module(backbone, block, wrapped[-1])
        wrapped[-1].is_last = True
        try:
            return checked_encoder(backbone, self)
        except Exception as error:
            for block in wrapped:
                replace_module(backbone, block, block.unwrap())
            if isinstance(error, GeotuneError):
                raise
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            raise unsupported_error(
                "vpt",
                backbone.name,
                "its blocks accept no tokens beside those of the image, as with attention biases "
                f"for each pair of positions ({type(error).__name__}: {reason}); choose lora, "
                "adapter or est",
            ) from error


class Prompts(nn.Module):
    """Learned tokens of one block."""

    def __init__(self, count: int, channels: int, pixels: float, dropout: float) -> None:
        super().__init__()
        bound = math.sqrt(6 / (3 * pixels + channels))
        self.tokens = nn.Parameter(torch.empty(count, channels).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)

    def forward(self, batch: int) -> Tensor:
        """Prompts `(B, num_prompts, C)`."""
        tokens: Tensor = self.dropout(self.tokens.expand(batch, -1, -1))
        return tokens


class CarriedPrompts:
    """Shallow prompts between two blocks, during one forward pass."""

    tokens: Tensor | None = None


class PromptedBlock(ModuleWrapper):
    """Runs a block with prompts before its tokens, and removes them from the output.

    Without `prompts` of its own the block gets the carried ones.
    """

    has_side_effects = True
    is_last = False
    """Whether this is the last block, which carries no prompts on."""

    def __init__(
        self, inner: nn.Module, prompts: Prompts | None, count: int, carried: CarriedPrompts | None
    ) -> None:
        super().__init__(inner)
        self.part = None if prompts is None else mark_inserted(prompts)
        self.count = count
        self.carried = carried
        self._shift_positions(count)

    def forward(self, x: Tensor, *inputs: Any, **named: Any) -> Tensor:
        """Tokens `(B, N, C)` to the same shape."""
        carried = self.carried
        prompts = self.part(x.shape[0]) if self.part is not None else carried and carried.tokens
        assert isinstance(prompts, Tensor)
        out: Tensor = self.inner(torch.cat([prompts.to(x.dtype), x], 1), *inputs, **named)
        if carried is not None:
            carried.tokens = None if self.is_last else out[:, : self.count]
        return out[:, self.count :]

    def unwrap(self) -> nn.Module:
        """Restore and return the original block."""
        self._shift_positions(-self.count)
        return self.inner

    def _shift_positions(self, count: int) -> None:
        """Add to the number of leading tokens that rotary position embeddings skip."""
        for module in self.inner.modules():
            values: dict[str, Any] = vars(module)
            if "num_prefix_tokens" in values:
                values["num_prefix_tokens"] += count
