"""Write the backbone of a pretraining to a file that `backbone.weights` accepts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geotune
from geotune.adapter_io import save_tensors
from geotune.backbones.continued import describe_weights
from geotune.errors import GeotuneError
from geotune.factory.build_model import BuiltModel
from geotune.methods.core.injection import is_inserted
from geotune.types import BandStatistics


@dataclass(frozen=True)
class ContinuedBackbone:
    """A backbone's file, or why there is none.

    Attributes:
        fingerprint: of the weights; empty without a file.
        reason: why there is none; empty with a file.
    """

    fingerprint: str = ""
    reason: str = ""


def write_continued_backbone(
    path: Path, built: BuiltModel, method: str, statistics: BandStatistics
) -> ContinuedBackbone:
    """Write the backbone's weights, with the method's update merged into them.

    Changes the model. Methods that train a network beside the backbone, or modules inside its
    blocks, leave its weights as they are: then nothing is written.
    """
    encoder, backbone = built.model.encoder, built.backbone
    base = backbone.fingerprint
    if encoder.can_merge:
        try:
            encoder.merge()
        except GeotuneError as error:
            return ContinuedBackbone(reason=str(error))
    elif encoder.backbone_frozen or any(is_inserted(m) for m in backbone.modules()):
        return ContinuedBackbone(reason=f"{method} does not change the weights of the backbone")
    elif encoder.method is not None and encoder.method.frozen_precision != "fp32":
        precision = encoder.method.frozen_precision
        return ContinuedBackbone(reason=f"its weights are rounded to {precision}")
    weights = describe_weights(
        backbone,
        source=backbone.source,
        base_fingerprint=base,
        method=method,
        offset=built.normalization.offset,
        scale=built.normalization.scale,
        mean=statistics.mean,
        std=statistics.std,
        pixels=statistics.pixels,
        geotune=geotune.__version__,
    )
    # copies, because tensors that share memory cannot be written
    state = {name: t.detach().cpu().clone() for name, t in backbone.model.state_dict().items()}
    save_tensors(path, state, weights.as_header())
    return ContinuedBackbone(fingerprint=weights.fingerprint)
