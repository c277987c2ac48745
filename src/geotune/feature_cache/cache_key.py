"""Cache keys: hashes of everything that cached features depend on.

A feature set is a folder named after what all its features depend on: weights, code and library
versions, bands, normalization, taps, precision. Within a set, the key of a sample depends on its
files (path, size, times), on the date and location that the backbone receives, on its
window and its orientation.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from geotune.backbones.base import Backbone, fingerprint
from geotune.config import TrainOptions
from geotune.data.raster.io import open_dataset
from geotune.data.raster.source import RasterSource
from geotune.data.window_datasets import FixedWindowDataset, GridWindowDataset
from geotune.errors import GeotuneError
from geotune.model import Model
from geotune.utils.code_hash import hash_code
from geotune.utils.file_stat import describe_stat
from geotune.utils.precision import autocast

FORMAT_VERSION = 1
"""Of the cached tensors; a new version makes new sets."""


def feature_dependencies(model: Model, train: TrainOptions, device: torch.device) -> dict[str, Any]:
    """Everything that the features of all windows depend on; the content of `manifest.json`."""
    reader = model.encoder.reader
    reduction = reader.compression_module()
    half = autocast(device, train.precision).fast_dtype
    return {
        **backbone_dependencies(model),
        "computed_in": str(torch.float32 if train.precision == "32-true" else half),
        "taps": {str(index): list(reader.required_inputs(index)) for index in reader.out_indices},
        "reduction": None if reduction is None else fingerprint(reduction),
        "held": train.cache_precision,
    }


def backbone_dependencies(model: Model) -> dict[str, Any]:
    """Everything that the taps of a frozen backbone depend on, for any image."""
    backbone, method = model.encoder.backbone, model.encoder.method
    spec = backbone.spec.model_dump()
    custom_file = backbone.spec.model.rpartition(":")[0]
    return {
        "format": FORMAT_VERSION,
        "backbone": {
            # the fingerprint identifies the weights
            **{k: v for k, v in spec.items() if k not in ("weights", "pretrained")},
            "fingerprint": backbone.fingerprint,
            "code": file_stamp(Path(custom_file)) if backbone.name.startswith("python/") else None,
            "packages": package_versions(backbone),
        },
        "extractor": extractor_hash(),
        "frozen_precision": method.frozen_precision if method else "fp32",
        "normalization": {
            "offset": model.offset.tolist(),
            "scale": model.scale.tolist(),
            "fill": model.fill.tolist(),
        },
    }


def feature_set_name(dependencies: Mapping[str, Any], label: str) -> str:
    """The folder name of a feature set: a readable label and a hash of the dependencies."""
    text = json.dumps(dependencies, sort_keys=True, default=str)
    slug = "".join(c if c.isalnum() or c in "._-" else "-" for c in label)
    return f"{slug[-60:]}-{_hash(text)[:12]}"


def sample_keys(windows: FixedWindowDataset | GridWindowDataset) -> list[str]:
    """The key of each window in each of its orientations; it changes with the scene's files."""
    scenes = []
    for scene in windows.scenes:
        raster = scene.raster
        layout: list[Any] = [
            [file.path.name, *list(vars(file).values())[1:]] for file in raster.band_files
        ]
        if "time" in windows.metadata:
            layout.append([raster.acquired, *raster.dates])
        if "location" in windows.metadata:
            layout.append([raster.crs and raster.crs.to_wkt(), tuple(raster.transform)])
        if raster.area is not None:  # windows hold no data beyond it
            layout.append(raster.area)
        files = _all_files(raster)
        if raster.quality is not None and raster.quality.options.mask_image:
            files.append(raster.quality.path)
            layout.append(raster.quality.options.model_dump(exclude={"pattern"}))
        scenes.append(scene_key([file_stamp(path) for path in files], layout))
    side = windows.window
    return [
        sample_key(scenes[index.scene], (index.row, index.col, side, side), orientation)
        for index in windows.windows
        for orientation in range(windows.num_orientations)
    ]


def _all_files(raster: RasterSource) -> list[Path]:
    """The files of an image, with what they refer to: sources of a VRT, masks, metadata."""
    files = dict.fromkeys(raster.files)
    for path in raster.paths:
        files |= {
            other: None for name in open_dataset(path).files if (other := Path(name)).exists()
        }
    return list(files)


def package_versions(backbone: Backbone) -> dict[str, Any]:
    """Version of each package whose layers a backbone has; of other modules, the file's stamp."""
    versions: dict[str, Any] = {}
    for module in {type(layer).__module__ for layer in backbone.modules()}:
        package = module.partition(".")[0]
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            file = getattr(sys.modules.get(module), "__file__", None)
            versions[module] = file and file_stamp(Path(file))
    return versions


@cache
def extractor_hash() -> str:
    """A hash of geotune's code that reads images and computes features from them."""
    return hash_code(
        "model.py", "utils/feature_encoding.py", "backbones", "methods/core", "data/raster"
    )


def file_stamp(path: Path) -> list[Any]:
    """Resolved path, size and times of a file. Raises `GeotuneError` if it is gone."""
    try:
        stat = path.stat()
    except OSError as error:
        raise GeotuneError(
            f"{path}: the file disappeared while its features were computed ({error.strerror})",
            code="file-missing",
            file=path,
        ) from error
    return [str(path.resolve()), *describe_stat(stat)]


def scene_key(stamps: Sequence[Sequence[Any]], layout: Sequence[Any]) -> str:
    """Key of a scene: the stamps of its files and the layout of its bands in them."""
    return _hash(json.dumps([stamps, layout], default=str))


def sample_key(scene: str, window: Sequence[int], orientation: int) -> str:
    """Key of a window (row, column, height, width) of a scene in one of eight orientations."""
    return _hash(f"{scene} {' '.join(map(str, window))} {orientation}")


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
