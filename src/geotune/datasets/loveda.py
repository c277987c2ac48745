"""LoveDA (Wang et al., NeurIPS 2021)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, FolderSplit

CLASSES = ["background", "building", "road", "water", "barren", "forest", "agriculture"]

LOVEDA = DatasetInfo(
    name="loveda",
    title="LoveDA: land cover in aerial images, urban and rural",
    task="segment",
    classes=CLASSES,
    class_values={name: [i] for i, name in enumerate(CLASSES, 1)},
    ignore_values=[0],
    bands=RGB,
    window=512,
    gsd_m=0.3,
    licence="CC BY-NC-SA 4.0",
    paper="https://arxiv.org/abs/2110.08733",
    source="https://zenodo.org/records/5706578",
    images=["{split}/{region}/images_png/{id}.png"],
    labels=["{split}/{region}/masks_png/{id}.png"],
    image_name="{split}_{region}_{id}",
    region="{region}",
    splits={"authors": FolderSplit("split", {"Train": "train", "Val": "val"})},
    note="The authors do not publish the test labels, only train and val.",
)
