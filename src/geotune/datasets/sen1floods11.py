"""Sen1Floods11, hand-labelled subset (Bonafilia et al., CVPR Workshops 2020)."""

from datetime import date

from geotune.datasets.band_sets import SENTINEL2_L1C
from geotune.datasets.base import DatasetInfo, PackagedSplit

HAND = "v1.1/data/flood_events/HandLabeled"

DATES = {
    "Bolivia": date(2018, 2, 15),
    "Colombia": date(2018, 8, 23),
    "Ghana": date(2018, 9, 19),
    "India": date(2016, 8, 12),
    "Mekong": date(2018, 8, 4),
    "Nigeria": date(2018, 9, 20),
    "Pakistan": date(2017, 6, 28),
    "Paraguay": date(2018, 10, 31),
    "Somalia": date(2018, 5, 5),
    "Spain": date(2019, 9, 18),
    "Sri-Lanka": date(2017, 5, 28),
    "USA": date(2019, 5, 22),
}
"""Of the Sentinel-2 images: `s2_date` in Sen1Floods11_Metadata.geojson (Mekong: Cambodia)."""

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
    dates=DATES,
    ignore_values=[-1],
    splits={"authors": PackagedSplit("sen1floods11.txt")},
    note="Bolivia occurs only in the test split. The lists are the authors', in the version of "
    "arXiv 2504.17397.",
)
