"""Registry of published data sets: name to `module:object`, imported on demand."""

from __future__ import annotations

from geotune.datasets.base import DatasetInfo
from geotune.registry import find
from geotune.utils.text import suggest

DATASETS: dict[str, str] = {
    "sen1floods11": "geotune.datasets.sen1floods11:SEN1FLOODS11",
    "burn_scars": "geotune.datasets.burn_scars:BURN_SCARS",
    "reben_7k": "geotune.datasets.reben:REBEN_7K",
    "m_cashew_plantation": "geotune.datasets.geobench:M_CASHEW_PLANTATION",
    "m_sa_crop_type": "geotune.datasets.geobench:M_SA_CROP_TYPE",
    "loveda": "geotune.datasets.loveda:LOVEDA",
    "potsdam": "geotune.datasets.isprs:POTSDAM",
    "vaihingen": "geotune.datasets.isprs:VAIHINGEN",
    "dior": "geotune.datasets.dior:DIOR",
    "dota": "geotune.datasets.dota:DOTA",
    "fair1m": "geotune.datasets.fair1m:FAIR1M",
    "nwpu_vhr10": "geotune.datasets.nwpu_vhr10:NWPU_VHR10",
    "eurosat": "geotune.datasets.eurosat:EUROSAT",
    "eurosat_rgb": "geotune.datasets.eurosat:EUROSAT_RGB",
    "uc_merced": "geotune.datasets.uc_merced:UC_MERCED",
    "resisc45": "geotune.datasets.resisc45:RESISC45",
    "geobench2_burn_scars": "geotune.datasets.geobench2:BURN_SCARS",
    "geobench2_caffe": "geotune.datasets.geobench2:CAFFE",
    "geobench2_cloudsen12": "geotune.datasets.geobench2:CLOUDSEN12",
    "geobench2_flair2": "geotune.datasets.geobench2:FLAIR2",
    "geobench2_spacenet7": "geotune.datasets.geobench2:SPACENET7",
    "geobench2_everwatch": "geotune.datasets.geobench2:EVERWATCH",
}


def get_dataset_info(name: str) -> DatasetInfo:
    """Look up a data set by name. Raises `ValueError` for an unknown name."""
    if name not in DATASETS:
        raise ValueError(f"data.name: found {name!r}; {suggest(name, DATASETS)}")
    info: DatasetInfo = find(DATASETS[name])
    return info
