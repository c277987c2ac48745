"""What is known of a backbone without building it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from geotune.backbones.spec import Metadata


@dataclass(frozen=True)
class ModelInfo:
    """What a provider knows of one of its models.

    Attributes:
        paper: title and arXiv number or DOI.
        licence: of the weights, with where it is stated.
        weights: where they are published, such as a hub's repository; empty where nowhere.
        bands: of the model, in its order; empty where it takes any.
        mean, std: of its bands in the pretraining data, where published.
        modalities: bands of each modality, for models of several.
        metadata: what of time and location it takes.
        takes: the options of `Request` that it takes.
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
