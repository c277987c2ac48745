"""HLS Burn Scars (IBM and NASA, 2023)."""

from geotune.datasets.base import DatasetInfo, FolderSplit, PackagedSplit

SCENE = "{folder}/subsetted_512x512_HLS.S30.{tile}.{date}.v1.4"

BURN_SCARS = DatasetInfo(
    name="burn_scars",
    title="HLS Burn Scars: wildfire scars in the contiguous United States, 2018 to 2021",
    task="segment",
    classes=["not burned", "burn scar"],
    bands=["B02", "B03", "B04", "B8A", "B11", "B12"],
    window=512,
    gsd_m=30,
    licence="CC BY 4.0",
    paper="https://doi.org/10.57967/hf/0956",
    source="https://huggingface.co/datasets/ibm-nasa-geospatial/hls_burn_scars",
    images=[f"{SCENE}_merged.tif"],
    labels=[f"{SCENE}.mask.tif"],
    image_name="{tile}.{date}.v1",
    region="{tile}",
    ignore_values=[-1],
    nodata=-9999,
    splits={
        "peft_geofm": PackagedSplit("burn_scars.txt"),
        "authors": FolderSplit("folder", {"training": "train", "validation": "val"}),
    },
    note="The authors publish no test split; the default is that of arXiv 2504.17397.",
)
