"""Nothing in the backbone trains; with the linear decoder this is linear probing."""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.config.method_options import FrozenOptions
from geotune.methods.core.base import Encoder, Method
from geotune.methods.core.inserted import freeze
from geotune.methods.core.reader import SelectedFeatures


class Frozen(FrozenOptions, Method):
    """Only the decoder (and the stem) train; with the linear decoder: linear probing."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`."""
        freeze(backbone)
        return Encoder(
            backbone,
            SelectedFeatures(backbone),
            self,
            backbone_frozen=True,
        )
