"""reBEN 7k: the subset of BigEarthNet v2 used by arXiv 2504.17397."""

from geotune.datasets.band_sets import SENTINEL2_L2A
from geotune.datasets.base import DatasetInfo, PackagedSplit

PATCH = "{product}_{row}_{col}"
CLASSES = {
    "Agro-forestry areas": [244],
    "Arable land": [211, 212, 213],
    "Beaches, dunes, sands": [331],
    "Broad-leaved forest": [311],
    "Coastal wetlands": [421, 422],
    "Complex cultivation patterns": [242],
    "Coniferous forest": [312],
    "Industrial or commercial units": [121],
    "Inland waters": [511, 512],
    "Inland wetlands": [411, 412],
    "Land principally occupied by agriculture, with significant areas of natural vegetation": [243],
    "Marine waters": [521, 522, 523],
    "Mixed forest": [313],
    "Moors, heathland and sclerophyllous vegetation": [322, 323],
    "Natural grassland and sparsely vegetated areas": [321, 333],
    "Pastures": [231],
    "Permanent crops": [221, 222, 223, 241],
    "Transitional woodland, shrub": [324],
    "Urban fabric": [111, 112],
}
"""CORINE Land Cover codes of each class."""

REBEN_7K = DatasetInfo(
    name="reben_7k",
    title="reBEN 7k: land cover in Sentinel-2 patches of BigEarthNet v2",
    task="segment",
    classes=list(CLASSES),
    class_values=CLASSES,
    ignore_values=[122, 123, 124, 131, 132, 133, 141, 142, 332, 334, 335, 423, 999],
    bands=SENTINEL2_L2A,
    grid_band="B02",
    window=120,
    gsd_m=10,
    licence="CDLA-Permissive-1.0",
    paper="https://arxiv.org/abs/2407.03653",
    source="https://bigearth.net",
    images=[f"BigEarthNet-S2/{{product}}/{PATCH}/{PATCH}_{{band}}.tif", f"S2_merged/{PATCH}.tif"],
    labels=[f"Reference_Maps/{{product}}/{PATCH}/{PATCH}_reference_map.tif"],
    image_name=PATCH,
    splits={"peft_geofm": PackagedSplit("reben_7k.txt")},
    note="Austria and Ireland occur only in the test split; `elsewhere` is eight other countries.",
)
