"""Two segmentation data sets of GEO-Bench (Lacoste et al., NeurIPS 2023), in HDF5."""

from collections.abc import Sequence

from geotune.datasets.band_sets import SENTINEL2_L2A
from geotune.datasets.base import DatasetInfo, ListFileSplit

LAYERS = {
    "B01": "01_-_Coastal_aerosol",
    "B02": "02_-_Blue",
    "B03": "03_-_Green",
    "B04": "04_-_Red",
    "B05": "05_-_Vegetation_Red_Edge",
    "B06": "06_-_Vegetation_Red_Edge",
    "B07": "07_-_Vegetation_Red_Edge",
    "B08": "08_-_NIR",
    "B8A": "08A_-_Vegetation_Red_Edge",
    "B09": "09_-_Water_vapour",
    "B11": "11_-_SWIR",
    "B12": "12_-_SWIR",
}
"""Prefixes of layer names: GDAL replaces spaces by `_`, and some files append a date."""


def _segmentation(
    name: str, folder: str, title: str, classes: Sequence[str], paper: str
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        task="segment",
        classes=classes,
        bands=SENTINEL2_L2A,
        window=256,
        gsd_m=10,
        licence="see the source",
        paper=paper,
        source="https://huggingface.co/datasets/recursix/geo-bench-1.0",
        images=[f"{folder}/{{id}}.hdf5"],
        labels=[f"{folder}/{{id}}.hdf5/label"],
        layers=LAYERS,
        image_name="{id}",
        splits={
            "authors": ListFileSplit(
                dict.fromkeys(("train", "val", "test"), f"{folder}/default_partition.json"),
                keys={"train": "train", "val": "valid", "test": "test"},
            )
        },
        note="Not georeferenced. `no data` is evaluated as a class, as in arXiv 2504.17397.",
    )


CASHEW_CLASSES = [
    "no data", "well-managed plantation", "poorly-managed plantation", "non-plantation",
    "residential", "background", "uncertain",
]  # fmt: skip
CROP_CLASSES = [
    "no data", "lucerne or medics", "planted pastures (perennial)", "fallow", "wine grapes",
    "weeds", "small grain grazing", "wheat", "canola", "rooibos",
]  # fmt: skip

M_CASHEW_PLANTATION = _segmentation(
    "m_cashew_plantation",
    "m-cashew-plant",
    "m-Cashew Plantation: cashew in Sentinel-2 images of Benin, of GEO-Bench",
    CASHEW_CLASSES,
    "https://doi.org/10.34911/rdnt.hfv20i",
)
M_SA_CROP_TYPE = _segmentation(
    "m_sa_crop_type",
    "m-SA-crop-type",
    "m-SA Crop Type: crops in Sentinel-2 images of South Africa, of GEO-Bench",
    CROP_CLASSES,
    "https://doi.org/10.34911/rdnt.j0co8q",
)
