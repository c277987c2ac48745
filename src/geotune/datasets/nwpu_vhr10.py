"""NWPU VHR-10 (Cheng et al., ISPRS Journal 2014)."""

from geotune.datasets.band_sets import RGB
from geotune.datasets.base import DatasetInfo

ROOT = "NWPU VHR-10 dataset"
CLASSES = [
    "airplane", "ship", "storage tank", "baseball diamond", "tennis court", "basketball court",
    "ground track field", "harbor", "bridge", "vehicle",
]  # fmt: skip

NWPU_VHR10 = DatasetInfo(
    name="nwpu_vhr10",
    title="NWPU VHR-10: 10 object classes in aerial images",
    task="detect",
    classes=CLASSES,
    class_values={name: [i] for i, name in enumerate(CLASSES, 1)},
    bands=RGB,
    window=512,
    licence="see the source",
    paper="https://doi.org/10.1016/j.isprsjprs.2014.10.002",
    source="https://gcheng-nwpu.github.io",
    images=[f"{ROOT}/{{set}} image set/{{id}}.jpg"],
    labels=[f"{ROOT}/ground truth/{{id}}.txt"],
    without_objects={"set": "negative"},
    format="nwpu",
    image_name="{set}_{id}",
    note="No split is published: define one in data.split. 85 of the images are false colour "
    "(near infrared, red, green) and not marked as such.",
)
