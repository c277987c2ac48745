"""Published facts about a backbone, available without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from geotune.config.backbone_options import Metadata


@dataclass(frozen=True)
class ModelInfo:
    """Facts about one model of a provider.

    Attributes:
        paper: title and arXiv number or DOI.
        licence: of the weights, and where it is stated.
        weights: where they are published, such as a Hugging Face repository; empty if nowhere.
        bands: in the model's order; empty if it accepts any.
        mean, std: of the bands in the pretraining data, if published.
        modalities: bands of each modality, for models of several.
        metadata: which of time and location it accepts.
        supported_options: names of `BackboneSpec` options that it accepts.
    """

    paper: str
    licence: str
    weights: str = ""
    bands: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    metadata: tuple[Metadata, ...] = ()
    supported_options: tuple[str, ...] = ()
