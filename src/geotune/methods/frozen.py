"""Nothing in the backbone trains; with the linear decoder this is linear probing."""

from __future__ import annotations

from dataclasses import dataclass

from geotune.backbones.base import Backbone
from geotune.methods.base import Encoder, Levels, freeze, level_indices


@dataclass(frozen=True)
class Frozen:
    """The backbone's features as they are.

    Attributes:
        stem: width of the convolutional branch on the image; 0 for none.
    """

    stem: int = 32

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        freeze(backbone)
        return Encoder(
            backbone,
            Levels(backbone, level_indices(backbone)),
            stem=self.stem,
            constant_backbone=True,
        )
