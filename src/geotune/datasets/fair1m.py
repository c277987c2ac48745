"""FAIR1M (Sun et al., ISPRS Journal 2022)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, FolderSplit

CLASSES = [
    "Passenger Ship", "Motorboat", "Fishing Boat", "Tugboat", "other-ship", "Engineering Ship",
    "Liquid Cargo Ship", "Dry Cargo Ship", "Warship", "Small Car", "Bus", "Cargo Truck",
    "Dump Truck", "other-vehicle", "Van", "Trailer", "Tractor", "Excavator", "Truck Tractor",
    "Boeing737", "Boeing747", "Boeing777", "Boeing787", "ARJ21", "C919", "A220", "A321", "A330",
    "A350", "other-airplane", "Baseball Field", "Basketball Court", "Football Field",
    "Tennis Court", "Roundabout", "Intersection", "Bridge",
]  # fmt: skip

FAIR1M = DatasetInfo(
    name="fair1m",
    title="FAIR1M: 37 fine-grained object classes in satellite images, oriented boxes",
    task="detect",
    classes=CLASSES,
    bands=RGB,
    window=1024,
    licence="CC BY-NC-SA 3.0",
    paper="https://arxiv.org/abs/2103.05569",
    source="https://www.gaofen-challenge.com/benchmark",
    images=["{split}/{half}/images/{id}.tif", "{split}/images/{id}.tif"],
    labels=[
        "{split}/{half}/labelXml/{id}.xml",
        "{split}/{half}/labelXmls/{id}.xml",
        "{split}/labelXml/{id}.xml",
        "{split}/labelXmls/{id}.xml",
    ],
    oriented=True,
    format="fair1m",
    image_name="{split}_{id}",
    splits={"authors": FolderSplit("split", {"train": "train", "validation": "val"})},
    note="The authors do not publish the test labels, only train and validation.",
)
