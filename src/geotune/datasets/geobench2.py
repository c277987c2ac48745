"""Data sets of GEO-Bench-2 (arXiv 2511.15658), as `geotune unpack` writes them.

Files are numbered as in the data loaders of github.com/The-AI-Alliance/GEO-Bench-2, from which
bands, classes and label values were taken.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from geotune.datasets.band_sets import SENTINEL2_L2A
from geotune.datasets.base import DatasetInfo, FolderSplit

SPLIT = FolderSplit("folder", {"train": "train", "validation": "val", "test": "test"})
FLAIR2_CLASSES = [
    "building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous",
    "deciduous", "brushwood", "vineyard", "herbaceous vegetation", "agricultural land",
    "plowed land", "other",
]  # fmt: skip


def _info(
    name: str, title: str, bands: Sequence[str], classes: Sequence[str], **more: Any
) -> DatasetInfo:
    return DatasetInfo(
        **{
            "name": f"geobench2_{name}",
            "title": f"{title}, of GEO-Bench-2",
            "task": "segment",
            "bands": bands,
            "classes": classes,
            "window": 512,
            "licence": "see the source",
            "paper": "https://arxiv.org/abs/2511.15658",
            "source": f"https://huggingface.co/datasets/aialliance/{name}",
            "images": ["{folder}/{id}/0.tif"],
            "labels": ["{folder}/{id}/1.tif"],
            "image_name": "{id}",
            "splits": {"geobench2": SPLIT},
            "note": f"Unpack it first: geotune unpack FOLDER geobench_{name}.tortilla",
            **more,
        }
    )


def _values(classes: Sequence[str], first: int) -> Mapping[str, Sequence[int]]:
    return {name: [value] for value, name in enumerate(classes, first)}


BURN_SCARS = _info(
    "burn_scars",
    "HLS Burn Scars: wildfire scars in the contiguous United States",
    ["B02", "B03", "B04", "B8A", "B11", "B12"],
    ["background", "burn scar"],
    gsd_m=30,
    ignore_values=[-1],
)
CAFFE = _info(
    "caffe",
    "CaFFe: calving fronts of glaciers in radar images",
    ["gray"],
    ["N/A", "rock", "glacier", "ocean/ice melange"],
)
CLOUDSEN12 = _info(
    "cloudsen12",
    "CloudSEN12: clouds and their shadows in Sentinel-2 images",
    SENTINEL2_L2A,
    ["clear", "thick cloud", "thin cloud", "cloud shadow"],
    gsd_m=10,
)
FLAIR2 = _info(
    "flair2",
    "FLAIR#2: land cover of France in aerial images with elevation",
    ["red", "green", "blue", "nir", "elevation"],
    FLAIR2_CLASSES,
    gsd_m=0.2,
    class_values={**_values(FLAIR2_CLASSES[:-1], 1), "other": list(range(13, 20))},
)
SPACENET7 = _info(
    "spacenet7",
    "SpaceNet 7: buildings in PlanetScope images",
    ["red", "green", "blue"],
    ["no building", "building"],
    gsd_m=4,
)
EVERWATCH = _info(
    "everwatch",
    "EverWatch: birds of the Everglades in drone images",
    ["red", "green", "blue"],
    [
        "White Ibis", "Great Egret", "Great Blue Heron", "Snowy Egret", "Wood Stork",
        "Roseate Spoonbill", "Anhinga", "Unknown White",
    ],
    task="detect",
    georeferenced=False,
    labels=["annotations.json"],
    format="coco",
)  # fmt: skip
