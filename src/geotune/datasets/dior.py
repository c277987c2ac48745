"""DIOR (Li et al., ISPRS Journal 2020) and its oriented boxes, DIOR-R (Cheng et al., 2022)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, ListFileSplit

CLASSES = [
    "airplane", "airport", "baseballfield", "basketballcourt", "bridge", "chimney", "dam",
    "Expressway-Service-area", "Expressway-toll-station", "golffield", "groundtrackfield",
    "harbor", "overpass", "ship", "stadium", "storagetank", "tenniscourt", "trainstation",
    "vehicle", "windmill",
]  # fmt: skip

DIOR = DatasetInfo(
    name="dior",
    title="DIOR: 20 object classes in aerial images; oriented boxes of DIOR-R",
    task="detect",
    classes=CLASSES,
    bands=RGB,
    window=800,
    licence="see the source",
    paper="https://arxiv.org/abs/1909.00133",
    source="https://gcheng-nwpu.github.io",
    images=["JPEGImages-{subset}/{id}.jpg"],
    labels=["Annotations/Horizontal Bounding Boxes/{id}.xml"],
    oriented_labels=["Annotations/Oriented Bounding Boxes/{id}.xml"],
    oriented=True,
    format="voc",
    image_name="{id}",
    splits={
        "authors": ListFileSplit(
            {split: f"ImageSets/Main/{split}.txt" for split in ("train", "val", "test")}
        )
    },
)
