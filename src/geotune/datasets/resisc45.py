"""NWPU-RESISC45 (Cheng et al., Proceedings of the IEEE 2017)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, ListFileSplit

CLASSES = [
    "airplane", "airport", "baseball_diamond", "basketball_court", "beach", "bridge", "chaparral",
    "church", "circular_farmland", "cloud", "commercial_area", "dense_residential", "desert",
    "forest", "freeway", "golf_course", "ground_track_field", "harbor", "industrial_area",
    "intersection", "island", "lake", "meadow", "medium_residential", "mobile_home_park",
    "mountain", "overpass", "palace", "parking_lot", "railway", "railway_station",
    "rectangular_farmland", "river", "roundabout", "runway", "sea_ice", "ship", "snowberg",
    "sparse_residential", "stadium", "storage_tank", "tennis_court", "terrace",
    "thermal_power_station", "wetland",
]  # fmt: skip

RESISC45 = DatasetInfo(
    name="resisc45",
    title="NWPU-RESISC45: 45 scene classes in aerial images, worldwide",
    task="classify",
    classes=CLASSES,
    bands=RGB,
    window=256,
    licence="see the source",
    paper="https://arxiv.org/abs/1703.00121",
    source="https://gcheng-nwpu.github.io",
    images=["NWPU-RESISC45/{label}/{id}.jpg"],
    image_name="{id}",
    splits={
        "neumann": ListFileSplit(
            {split: f"resisc45-{split}.txt" for split in ("train", "val", "test")},
            source="https://huggingface.co/datasets/isaaccorley/resisc45",
        )
    },
    note="The lists are those of arXiv 1911.06721.",
)
