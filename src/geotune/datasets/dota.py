"""DOTA v1.0 (Xia et al., CVPR 2018)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, FolderSplit

CLASSES = [
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court",
    "ground-track-field", "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter",
    "roundabout", "soccer-ball-field", "swimming-pool",
]  # fmt: skip

DOTA = DatasetInfo(
    name="dota",
    title="DOTA v1.0: 15 object classes in aerial images, oriented boxes",
    task="detect",
    classes=CLASSES,
    bands=RGB,
    window=1024,
    licence="for academic purposes only",
    paper="https://arxiv.org/abs/1711.10398",
    source="https://captain-whu.github.io/DOTA/dataset.html",
    images=["{split}/images/{id}.png"],
    labels=[
        "{split}/labelTxt/{id}.txt",
        "{split}/labelTxt-v1.0/labelTxt/{id}.txt",
        "{split}/labelTxt-v1.0/{id}.txt",
        "{split}/annotations/version1.0/{id}.txt",
    ],
    oriented=True,
    grey=True,
    format="dota",
    image_name="{id}",
    splits={"authors": FolderSplit("split", {"train": "train", "val": "val"})},
    note="The authors do not publish the test labels, only train and val.",
)
