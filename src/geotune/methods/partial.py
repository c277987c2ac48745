"""Partial fine-tuning: the last blocks of the backbone train, those before stay as they are.

No gradient goes below the first block that trains, so nothing is saved of those before.
"""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.config.method_options import PartialOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Encoder, Method
from geotune.methods.core.injection import require_blocks
from geotune.methods.selective import train_subset


class Partial(PartialOptions, Method):
    """Of the backbone, only the last blocks train."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for more blocks than there are."""
        require_blocks(backbone, "partial")
        depth = len(backbone.blocks)
        if self.blocks > depth:
            raise GeotuneError(
                f"method.blocks {self.blocks}: {backbone.name} has {depth} blocks; choose at most "
                f"{depth}, or method.kind=full"
            )
        last = {id(p) for block in backbone.blocks[-self.blocks :] for p in block.parameters()}
        chosen = {name for name, p in backbone.model.named_parameters() if id(p) in last}
        return train_subset(backbone, self, chosen)
