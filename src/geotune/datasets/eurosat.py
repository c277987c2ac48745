"""EuroSAT (Helber et al., JSTARS 2019), in RGB and with all bands."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, ListFileSplit

CLASSES = [
    "AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial", "Pasture",
    "PermanentCrop", "Residential", "River", "SeaLake",
]  # fmt: skip
LISTS = "https://huggingface.co/datasets/torchgeo/eurosat"
NOTE = "The lists are those of arXiv 1911.06721; eurosat-spatial-*.txt split it by longitude."


def _lists(kind: str) -> ListFileSplit:
    files = {split: f"eurosat{kind}-{split}.txt" for split in ("train", "val", "test")}
    return ListFileSplit(files, source=LISTS)


def _eurosat(
    name: str, title: str, bands: list[str], suffix: str, folders: list[str]
) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        title=title,
        task="classify",
        classes=CLASSES,
        bands=bands,
        window=64,
        gsd_m=10,
        licence="MIT",
        paper="https://arxiv.org/abs/1709.00029",
        source="https://zenodo.org/records/7711810",
        images=[f"{folder}/{{label}}/{{label}}_{{id}}.{suffix}" for folder in folders],
        image_name="{label}_{id}",
        splits={"neumann": _lists(""), "spatial": _lists("-spatial")},
        note=NOTE,
    )


EUROSAT_RGB = _eurosat(
    "eurosat_rgb",
    "EuroSAT: land use in Sentinel-2 patches, RGB",
    RGB,
    "jpg",
    ["EuroSAT_RGB", "2750"],
)
EUROSAT = _eurosat(
    "eurosat",
    "EuroSAT: land use in Sentinel-2 patches, all bands",
    ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"],
    "tif",
    ["EuroSAT_MS", "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"],
)
