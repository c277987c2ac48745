"""DOTA v1.0 (Xia et al., CVPR 2018)."""

from geotune.datasets.base import DatasetInfo, FolderSplit
from geotune.datasets.colours import RGB

DOTA = DatasetInfo(
    name="dota",
    title="DOTA v1.0: 15 classes of objects in aerial images, oriented",
    task="detect",
    classes=[
        "plane",
        "ship",
        "storage-tank",
        "baseball-diamond",
        "tennis-court",
        "basketball-court",
        "ground-track-field",
        "harbor",
        "bridge",
        "large-vehicle",
        "small-vehicle",
        "helicopter",
        "roundabout",
        "soccer-ball-field",
        "swimming-pool",
    ],
    bands=RGB,
    window=1024,
    licence="for academic purposes only",
    paper="https://arxiv.org/abs/1711.10398",
    source="https://captain-whu.github.io/DOTA/dataset.html",
    images=["{part}/images/{id}.png"],
    labels=[
        "{part}/labelTxt/{id}.txt",
        "{part}/labelTxt-v1.0/labelTxt/{id}.txt",
        "{part}/labelTxt-v1.0/{id}.txt",
        "{part}/annotations/version1.0/{id}.txt",
    ],
    oriented=True,
    grey=True,
    format="dota",
    image_name="{id}",
    divisions={"authors": FolderSplit("part", {"train": "train", "val": "val"})},
    note="The authors keep the test part's labels: train and val are open.",
)
