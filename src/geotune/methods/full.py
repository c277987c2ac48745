"""Full fine-tuning: every parameter of the backbone trains."""

from __future__ import annotations

from geotune.backbones.base import Backbone
from geotune.config.method_options import FullOptions
from geotune.errors import GeotuneError
from geotune.methods.core.base import Encoder, Method
from geotune.methods.core.gradient_check import dead_parameters
from geotune.methods.core.reader import SelectedFeatures


class Full(FullOptions, Method):
    """Every parameter trains that can change the output."""

    def attach(self, backbone: Backbone) -> Encoder:
        """See `Method.attach`. Raises `GeotuneError` for a backbone that is frozen already."""
        if not any(parameter.requires_grad for parameter in backbone.parameters()):
            raise GeotuneError(
                f"full on {backbone.name}: another method has frozen this backbone; build it anew"
            )
        encoder = Encoder(
            backbone,
            SelectedFeatures(backbone),
            self,
            backbone_frozen=False,
            backbone_trains=True,
        )
        # weights that no output depends on (a pooling head's norm, say) stay as they are
        parameters = dict(encoder.named_parameters())
        for name in dead_parameters(encoder):
            parameters[name].requires_grad_(False)
        return encoder
