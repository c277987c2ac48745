"""The weights that torchgeo offers for the networks of timm and torchvision.

`weights_table.csv` has them, taken from the enumerations of weights of torchgeo 0.8.1, so that they can
be listed without importing it. A name is the network's with the entry's in lower case:
`ResNet18_Weights`' `SENTINEL2_ALL_MOCO` is `resnet18_sentinel2_all_moco`. The file is that of a
repository of Hugging Face's at a revision. Licences are those of the table of weights in torchgeo's
documentation.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from geotune.backbones.model_info import ModelInfo
from geotune.backbones.torchgeo.input_spec import IMAGES, InputSpec

TABLE = Path(__file__).with_name("weights_table.csv")


@dataclass(frozen=True)
class Project:
    """Who made the weights: the paper and the licence."""

    paper: str
    licence: str


@dataclass(frozen=True)
class Published:
    """Weights of one name: the network, the images that it was trained on, and the rest."""

    network: str
    images: InputSpec
    facts: ModelInfo


def _project(paper: str, licence: str) -> Project:
    return Project(paper, f"{licence} (torchgeo's documentation)")


PROJECTS = {
    "ssl4eo_l": _project("SSL4EO-L, arXiv 2306.09424", "CC0-1.0"),
    "ssl4eo_s12": _project("SSL4EO-S12, arXiv 2211.07044", "CC-BY-4.0"),
    "fg_mae": _project("Feature Guided Masked Autoencoder, arXiv 2310.18653", "CC-BY-4.0"),
    "softcon": _project("SoftCon, arXiv 2405.20462", "CC-BY-4.0"),
    "decur": _project("DeCUR, arXiv 2309.05300", "Apache-2.0"),
    "seco": _project("Seasonal Contrast, arXiv 2103.16607", "Apache-2.0"),
    "ssl4eco": _project("SSL4Eco, arXiv 2504.18256", "MIT"),
    "closp": _project("CLOSP, arXiv 2507.10403", "OpenRAIL"),
    "satlas": _project("SatlasPretrain, arXiv 2211.15660", "ODC-BY"),
    "gassl": Project("Geography-Aware Self-Supervised Learning, arXiv 2011.09980", "not stated"),
    "mask2former": Project("Mask2Former, arXiv 2112.01527", "not stated by torchgeo"),
}


def _published() -> dict[str, Published]:
    """Every name, in the order of the table."""
    found = {}
    with TABLE.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            project, images = PROJECTS[row["project"]], IMAGES[row["images"]]
            where = f"{row['repository']}/resolve/{row['revision']}/{row['file']}"
            facts = ModelInfo(
                paper=project.paper,
                licence=project.licence,
                weights=f"https://huggingface.co/{where}",
                bands=images.bands,
                mean=images.mean,
                std=images.std,
                supported_options=("new_bands",),
            )
            found[row["name"]] = Published(row["network"], images, facts)
    return found


PUBLISHED: dict[str, Published] = _published()
