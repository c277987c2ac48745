"""UC Merced Land Use (Yang and Newsam, 2010)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo, ListFileSplit

CLASSES = [
    "agricultural", "airplane", "baseballdiamond", "beach", "buildings", "chaparral",
    "denseresidential", "forest", "freeway", "golfcourse", "harbor", "intersection",
    "mediumresidential", "mobilehomepark", "overpass", "parkinglot", "river", "runway",
    "sparseresidential", "storagetanks", "tenniscourt",
]  # fmt: skip

UC_MERCED = DatasetInfo(
    name="uc_merced",
    title="UC Merced: 21 land-use classes in aerial images of the United States",
    task="classify",
    classes=CLASSES,
    bands=RGB,
    window=256,
    gsd_m=0.3,
    licence="public domain (USGS National Map)",
    paper="https://doi.org/10.1145/1869790.1869829",
    source="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
    images=["UCMerced_LandUse/Images/{label}/{id}.tif"],
    image_name="{id}",
    splits={
        "neumann": ListFileSplit(
            {split: f"uc_merced-{split}.txt" for split in ("train", "val", "test")},
            source="https://huggingface.co/datasets/torchgeo/ucmerced",
        )
    },
    note="The lists are those of arXiv 1911.06721.",
)
