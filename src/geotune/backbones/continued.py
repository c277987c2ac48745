"""Weights that geotune wrote itself: of a backbone whose pretraining was continued.

The header of the `.safetensors` file says what they come from, so that `backbone.weights` accepts
them for every provider, whose own formats differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from geotune.backbones.base import Backbone, fingerprint
from geotune.backbones.spec import BackboneSpec
from geotune.backbones.weights import load_weights, read_state_dict
from geotune.errors import GeotuneError
from geotune.types import BandStatistics, Normalization

KEY = "geotune_backbone"
"""Of the description in the header."""


@dataclass(frozen=True)
class ContinuedWeights:
    """What weights come from.

    Attributes:
        name: of the backbone.
        bands: of its images, in order.
        fingerprint: of the weights.
        licence: of the weights that they started from.
        source: description of those.
        base_fingerprint: of those.
        method: `method.kind` of the pretraining.
        offset: normalisation of each band in the pretraining: `(x - offset) / scale`.
        scale: see `offset`.
        mean: of each band over the images of the pretraining, in raw units.
        std: standard deviation, likewise.
        pixels: number of pixels of these images.
        geotune: version that wrote the file.
    """

    name: str
    bands: tuple[str, ...]
    fingerprint: str
    licence: str
    source: str
    base_fingerprint: str
    method: str
    offset: tuple[float, ...]
    scale: tuple[float, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pixels: int
    geotune: str

    def as_header(self) -> dict[str, str]:
        """Metadata for the header of the file."""
        return {KEY: json.dumps(asdict(self))}


def read_header(path: Path) -> ContinuedWeights | None:
    """The description of weights that geotune wrote; None for other files.

    Raises `GeotuneError` for a description that this version does not know.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
    except (OSError, SafetensorError):  # the provider says what is wrong
        return None
    if KEY not in header:
        return None
    try:
        values = json.loads(header[KEY])
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return ContinuedWeights(**{**values, **lists})
    except (TypeError, ValueError, AttributeError) as error:
        raise GeotuneError(
            f"{path}: its description is not one of this version ({error}); use the geotune "
            "version that wrote it, or pretrain again",
            code="weights-mismatch",
            key="backbone.weights",
            file=path,
        ) from error


def build_continued(
    build: Callable[[BackboneSpec], Backbone],
    spec: BackboneSpec,
    weights: ContinuedWeights,
    origin: str,
) -> Backbone:
    """Build the backbone of `spec.weights`, which `weights` describes and which are from `origin`.

    Raises `GeotuneError` if it is another model or was pretrained with other bands.
    """
    path = spec.weights
    assert path is not None
    if weights.name != spec.name:
        raise _mismatch(path, f"weights of {weights.name}, but backbone.name is {spec.name}")
    if weights.bands != spec.bands:
        raise _mismatch(
            path,
            f"weights for the bands {', '.join(weights.bands)}, but the images have "
            f"{', '.join(spec.bands)}; name the same bands in the same order with backbone.bands",
        )
    backbone = build(spec.model_copy(update={"weights": None, "pretrained": False}))
    load_weights(backbone.model, read_state_dict(path), str(path), spec.name)
    backbone.spec = spec
    backbone.fingerprint = fingerprint(backbone.model)
    backbone.random_weights = False
    backbone.licence = weights.licence
    backbone.source = (
        f"{origin}: {weights.source}, whose pretraining was continued with method.kind "
        f"{weights.method}"
    )
    backbone.normalization = Normalization(spec.bands, weights.offset, weights.scale)
    backbone.pretraining = BandStatistics(spec.bands, weights.mean, weights.std, weights.pixels)
    return backbone


def _mismatch(path: Path, problem: str) -> GeotuneError:
    return GeotuneError(
        f"{path}: {problem}", code="weights-mismatch", key="backbone.weights", file=path
    )


def describe_weights(backbone: Backbone, **values: Any) -> ContinuedWeights:
    """The description of a backbone's weights as they are now; its `fingerprint` is the base's."""
    return ContinuedWeights(
        name=backbone.name,
        bands=backbone.bands,
        fingerprint=fingerprint(backbone.model),
        licence=backbone.licence,
        **values,
    )
