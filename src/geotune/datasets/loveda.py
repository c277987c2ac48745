"""LoveDA (Wang et al., NeurIPS 2021)."""

from geotune.datasets.base import DatasetInfo, FolderSplit
from geotune.datasets.colours import RGB

CLASSES = ["background", "building", "road", "water", "barren", "forest", "agriculture"]

LOVEDA = DatasetInfo(
    name="loveda",
    title="LoveDA: land cover in aerial images, urban and rural",
    task="segment",
    classes=CLASSES,
    values={name: [i] for i, name in enumerate(CLASSES, 1)},
    ignored=[0],
    bands=RGB,
    window=512,
    gsd_m=0.3,
    licence="CC BY-NC-SA 4.0",
    paper="https://arxiv.org/abs/2110.08733",
    source="https://zenodo.org/records/5706578",
    images=["{part}/{region}/images_png/{id}.png"],
    labels=["{part}/{region}/masks_png/{id}.png"],
    image_name="{part}_{region}_{id}",
    region="{region}",
    divisions={"authors": FolderSplit("part", {"Train": "train", "Val": "val"})},
    note="The authors keep the test part's labels: train and val are open.",
)
