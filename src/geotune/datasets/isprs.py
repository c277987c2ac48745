"""Potsdam and Vaihingen, the ISPRS 2D semantic labelling benchmarks."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, NamedSplit

CLASSES = {
    "clutter": [0xFF0000],
    "impervious surfaces": [0xFFFFFF],
    "building": [0x0000FF],
    "low vegetation": [0x00FFFF],
    "tree": [0x00FF00],
    "car": [0xFFFF00],
}
LICENCE = "research only, on request from the ISPRS"
SOURCE = "https://www.isprs.org/resources/datasets/benchmarks/UrbanSemLab/default.aspx"
PAPER = "https://doi.org/10.5194/isprsannals-I-3-293-2012"

POTSDAM_TRAIN = (
    "2_11 2_12 3_10 3_11 3_12 4_10 4_11 4_12 5_10 5_11 5_12 6_7 6_8 6_9 6_10 6_11 6_12 7_7 7_8 "
    "7_9 7_11 7_12"
)
POTSDAM_TEST = "2_13 2_14 3_13 3_14 4_13 4_14 4_15 5_13 5_14 5_15 6_13 6_14 6_15 7_13"
VAIHINGEN_TRAIN = "1 3 5 7 11 13 15 17 21 23 26 28 32 34 37"
VAIHINGEN_TEST = "2 4 6 8 10 12 14 16 20 22 24 27 29 31 33 35 38"

POTSDAM = DatasetInfo(
    name="potsdam",
    title="Potsdam: urban land cover in aerial images of 5 cm",
    task="segment",
    classes=list(CLASSES),
    class_values=CLASSES,
    bands=[*RGB, "nir"],
    window=512,
    gsd_m=0.05,
    licence=LICENCE,
    paper=PAPER,
    source=SOURCE,
    images=["4_Ortho_RGBIR/top_potsdam_{tile}_RGBIR.tif"],
    labels=["5_Labels_all/top_potsdam_{tile}_label.tif", "top_potsdam_{tile}_label.tif"],
    image_name="{tile}",
    splits={
        "usual": NamedSplit(
            {"train": POTSDAM_TRAIN.split(), "val": ["2_10"], "test": POTSDAM_TEST.split()}
        )
    },
    note="The benchmark's train and test split; as in most papers, tile 2_10 of train is the "
    "validation split and 7_10, whose labels are wrong, is excluded.",
)
VAIHINGEN = DatasetInfo(
    name="vaihingen",
    title="Vaihingen: urban land cover in false-colour aerial images of 9 cm",
    task="segment",
    classes=list(CLASSES),
    class_values=CLASSES,
    bands=["nir", "red", "green"],
    window=512,
    gsd_m=0.09,
    licence=LICENCE,
    paper=PAPER,
    source=SOURCE,
    images=["top/top_mosaic_09cm_area{area}.tif"],
    labels=[
        "gts_for_participants/top_mosaic_09cm_area{area}.tif",
        "top_mosaic_09cm_area{area}.tif",
    ],
    image_name="{area}",
    splits={
        "usual": NamedSplit(
            {"train": VAIHINGEN_TRAIN.split(), "val": ["30"], "test": VAIHINGEN_TEST.split()}
        )
    },
    note="The benchmark's train and test split; as in most papers, area 30 of train is the "
    "validation split.",
)
