"""The data of a recipe from TerraTorch's generic data modules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geotune.api.from_terratorch.config_section import ConfigSection, objects
from geotune.api.from_terratorch.data_files import Pairs, as_table, list_pairs, without_repeats
from geotune.api.init.draft import Draft
from geotune.data.raster.header import read_header
from geotune.utils.atomic import write_atomically

MODULES = {
    "segment": "GenericNonGeoSegmentationDataModule",
    "regress": "GenericNonGeoPixelwiseRegressionDataModule",
    "classify": "GenericNonGeoClassificationDataModule",
}
"""The data module of each kind of task."""
FLIPS = {"D4", "HorizontalFlip", "VerticalFlip", "RandomRotate90", "Flip", "Transpose"}
IDLE = {"ToTensorV2"}
CROPS = {"RandomCrop", "CenterCrop", "Resize", "RandomResizedCrop"}
MAX_WINDOW = 512
"""Larger images are trained in windows of this side."""


def set_data(
    draft: Draft, kind: str, data: ConfigSection, bands: Any, ignore_index: Any, table: Path
) -> list[str]:
    """Set the data, and write the table of images and labels.

    Args:
        draft: the recipe.
        kind: of the task.
        data: `data.init_args`.
        bands: `backbone_bands`, or the number of bands.
        ignore_index: label that the loss ignores.
        table: to write.

    Returns what differs, for the user. Raises `GeotuneError` if files are missing.
    """
    images = kind == "classify"
    pairs, notes = without_repeats(list_pairs(data, images=images))
    if "val" not in pairs:
        raise data.error("val_data_root", "images for validation that are not in train")
    if images:
        pairs = _with_class_names(draft, pairs)
    write_atomically(table, as_table(pairs, table.parent, images=images))
    data.take("predict_data_root")
    splits = ", ".join(f"{len(members)} {split}" for split, members in pairs.items())
    comment = f"the files that TerraTorch reads: {splits}"
    if images:
        draft.set("data.kind", "images")
        draft.set("data.images", str(table.parent), comment)
        draft.set("data.labels", str(table))
    else:
        draft.set("data.kind", "scenes")
        draft.set("data.scenes", str(table), comment)
    draft.set("data.split", {"kind": "column"})
    _set_bands(draft, data, bands)
    _set_normalization(draft, data, notes)
    if kind == "segment":
        _set_labels(draft, data, ignore_index)
    _set_windows(draft, data, pairs, notes)
    if data.take("expand_temporal_dimension", False):
        notes.append(
            "data.init_args.expand_temporal_dimension: geotune reads a file per date; split the "
            "stacks and use {date} in the table, or backbone.timesteps=1"
        )
    return notes


def _with_class_names(draft: Draft, pairs: Pairs) -> Pairs:
    """Images with the names of their classes: those given, else those of the folders, in order."""
    folders = sorted({label for members in pairs.values() for _, label in members})
    names = draft.values["task"]["classes"]
    if "task.classes" in draft.comments or len(names) != len(folders):
        names = folders
        draft.set("task.classes", names, "the folders of the images")
    name_of = dict(zip(folders, names, strict=True))
    return {
        split: [(image, name_of[label]) for image, label in members]
        for split, members in pairs.items()
    }


def _set_bands(draft: Draft, data: ConfigSection, given: Any) -> None:
    """Bands in file order (`data.bands`), and those of the model in its order."""
    in_file = _band_names(data.take("dataset_bands"))
    chosen = _band_names(data.take("output_bands")) or in_file
    if isinstance(given, Mapping):  # by modality: the names of the files
        draft.set("backbone.bands", {name: list(bands) for name, bands in given.items()})
        return
    own = _band_names(given) if isinstance(given, Sequence) else []
    if own and not in_file:
        in_file = chosen = own
    if own and len(own) == len(chosen):  # the model's names of the same bands
        renamed = dict(zip(chosen, own, strict=True))
        in_file = [renamed.get(band, band) for band in in_file]
        chosen = own
    if in_file:
        draft.set("data.bands", in_file)
        draft.set("backbone.bands", chosen)
    elif isinstance(given, int):
        draft.set("backbone.bands", given)


def _band_names(bands: Any) -> list[str]:
    """Names of bands; TerraTorch also takes numbers, and ranges of them."""
    names: list[str] = []
    for band in bands or ():
        if isinstance(band, Sequence) and not isinstance(band, str) and len(band) == 2:
            names += [f"band{i}" for i in range(int(band[0]), int(band[1]) + 1)]
        else:
            names.append(f"band{band}" if isinstance(band, int) else str(band).rpartition(".")[2])
    return names


def _set_normalization(draft: Draft, data: ConfigSection, notes: list[str]) -> None:
    """Means and deviations in the units of the files, before `constant_scale`."""
    scale = float(data.take("constant_scale", 1))
    means, stds = data.take("means"), data.take("stds")
    names = draft.values["backbone"].get("bands")
    moments = [each if isinstance(each, list) else [] for each in (means, stds)]
    if isinstance(names, list) and {len(each) for each in moments} == {len(names)}:
        values = {
            name: [float(f"{float(value) / scale:.9g}") for value in pair]
            for name, *pair in zip(names, *moments, strict=True)
        }
        comment = "" if scale == 1 else f"in the units of the files: divided by {scale:g}"
        draft.set("data.normalize", values, comment)
    elif means is not None:
        notes.append("data.init_args.means, stds: not one of each band; geotune computes them")
        draft.set("data.normalize", "data")
    fill = data.take("no_data_replace")
    if fill is not None:
        draft.set("data.nodata_fill", float(fill) / scale)


def _set_labels(draft: Draft, data: ConfigSection, ignore_index: Any) -> None:
    """Values of the classes, and those that are ignored."""
    ignored = {int(ignore_index)} if ignore_index is not None else set()
    filled = data.take("no_label_replace")
    shifted = bool(data.take("reduce_zero_label", False))
    if shifted:
        names = draft.values["task"]["classes"]
        comment = "reduce_zero_label: class values count from 1"
        draft.set("data.class_values", {name: i for i, name in enumerate(names, 1)}, comment)
        ignored = {value + 1 for value in ignored} | {0}
    if ignored:
        comment = f"TerraTorch: ignore_index {ignore_index}"
        if filled is not None:
            comment += f", no_label_replace {filled}"
        draft.set("data.ignore_values", sorted(ignored), comment)


def _set_windows(draft: Draft, data: ConfigSection, pairs: Pairs, notes: list[str]) -> None:
    """Whole images, once per epoch, unless they are large or cropped."""
    crop, flips, other = None, False, []
    for name, args in objects(data.take("train_transform", [])):
        flips |= name in FLIPS
        if name in CROPS:
            size = args.get("height", args.get("size"))
            crop = int(size[0] if isinstance(size, list) else size) if size else crop
            if "Resize" in name:
                other.append(f"{name}, whose windows are crops here")
        elif name not in FLIPS | IDLE:
            other.append(name)
    for split in ("val", "test"):
        data.take(f"{split}_transform")
    notes += [f"data.init_args.train_transform: geotune has no {name}" for name in other]
    header = read_header(Path(pairs["train"][0][0]))
    side = max(header.shape)
    window = crop or min(side, MAX_WINDOW)
    draft.set("data.window", window, f"images of {header.shape[0]}x{header.shape[1]} pixels")
    draft.set("data.augment", flips)
    draft.set("data.brightness", 0)
    draft.set("data.rare_class_fraction", 0)
    if window >= side:
        draft.set("data.replacement", False, "each image once per epoch, as in TerraTorch")
