"""Sen1Floods11, hand-labelled subset (Bonafilia et al., CVPR Workshops 2020)."""

from geotune.datasets.band_sets import SENTINEL2_L1C
from geotune.datasets.base import DatasetInfo, PackagedSplit

HAND = "v1.1/data/flood_events/HandLabeled"

SEN1FLOODS11 = DatasetInfo(
    name="sen1floods11",
    title="Sen1Floods11: water in Sentinel-2 images of eleven floods",
    task="segment",
    classes=["not water", "water"],
    bands=SENTINEL2_L1C,
    window=512,
    gsd_m=10,
    licence="see the source",
    paper="https://doi.org/10.1109/CVPRW50498.2020.00113",
    source="https://github.com/cloudtostreet/Sen1Floods11",
    images=[f"{HAND}/S2Hand/{{region}}_{{id}}_S2Hand.tif"],
    labels=[f"{HAND}/LabelHand/{{region}}_{{id}}_LabelHand.tif"],
    image_name="{region}_{id}",
    region="{region}",
    ignore_values=[-1],
    splits={"authors": PackagedSplit("sen1floods11.txt")},
    note="Bolivia occurs only in the test split. The lists are the authors', in the version of "
    "arXiv 2504.17397.",
)
