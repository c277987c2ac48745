"""torchgeo's weights for the networks of timm and torchvision.

`weights_table.csv` lists the weights enumerations of torchgeo 0.8.1, so that listing them needs no
import of torchgeo. A name combines network and entry in lower case: `SENTINEL2_ALL_MOCO` of
`ResNet18_Weights` is `resnet18_sentinel2_all_moco`. Files are in Hugging Face repositories at a
fixed revision. Licences are from the table of weights in torchgeo's documentation.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from geotune.backbones.model_info import ModelInfo
from geotune.backbones.torchgeo.input_spec import INPUT_SPECS, InputSpec

TABLE = Path(__file__).with_name("weights_table.csv")


@dataclass(frozen=True)
class WeightsOrigin:
    """Paper and licence of weights."""

    paper: str
    licence: str


@dataclass(frozen=True)
class PublishedWeights:
    """Weights of one name: the network, its input images, and further facts."""

    network: str
    images: InputSpec
    info: ModelInfo


def _origin(paper: str, licence: str) -> WeightsOrigin:
    return WeightsOrigin(paper, f"{licence} (torchgeo's documentation)")


ORIGINS = {
    "ssl4eo_l": _origin("SSL4EO-L, arXiv 2306.09424", "CC0-1.0"),
    "ssl4eo_s12": _origin("SSL4EO-S12, arXiv 2211.07044", "CC-BY-4.0"),
    "fg_mae": _origin("Feature Guided Masked Autoencoder, arXiv 2310.18653", "CC-BY-4.0"),
    "softcon": _origin("SoftCon, arXiv 2405.20462", "CC-BY-4.0"),
    "decur": _origin("DeCUR, arXiv 2309.05300", "Apache-2.0"),
    "seco": _origin("Seasonal Contrast, arXiv 2103.16607", "Apache-2.0"),
    "ssl4eco": _origin("SSL4Eco, arXiv 2504.18256", "MIT"),
    "closp": _origin("CLOSP, arXiv 2507.10403", "OpenRAIL"),
    "satlas": _origin("SatlasPretrain, arXiv 2211.15660", "ODC-BY"),
    "gassl": WeightsOrigin(
        "Geography-Aware Self-Supervised Learning, arXiv 2011.09980", "not stated"
    ),
    "mask2former": WeightsOrigin("Mask2Former, arXiv 2112.01527", "not stated by torchgeo"),
}


def _published() -> dict[str, PublishedWeights]:
    """Read the table; by name, in its order."""
    published = {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            origin, images = ORIGINS[row["project"]], INPUT_SPECS[row["images"]]
            path = f"{row['repository']}/resolve/{row['revision']}/{row['file']}"
            info = ModelInfo(
                paper=origin.paper,
                licence=origin.licence,
                weights=f"https://huggingface.co/{path}",
                bands=images.bands,
                mean=images.mean,
                std=images.std,
                supported_options=("new_bands",),
            )
            published[row["name"]] = PublishedWeights(row["network"], images, info)
    return published


PUBLISHED_WEIGHTS: dict[str, PublishedWeights] = _published()
