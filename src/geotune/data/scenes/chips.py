"""Finding chips: a folder of images and a folder of masks, matched by stem."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from geotune.data.issues import ErrorCollector
from geotune.data.labels.base import LabelReader
from geotune.data.raster.open_raster import open_raster
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.scenes.open_scenes import drop_inconsistent_bands
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError
from geotune.utils.text import join_some, pluralize


def open_chips(
    read: LabelReader,
    *,
    images: Path,
    masks: Path,
    image_suffix: str = "",
    mask_suffix: str = "",
    bands: Sequence[str] | None = None,
    wanted_bands: Sequence[str] | None = None,
    nodata: float | None = None,
    resolution: float | None = None,
    faults: ErrorCollector | None = None,
) -> list[Scene]:
    """Chips of the folders `images` and `masks`, sorted by name; each is a small scene.

    A chip's name is its image's stem without `image_suffix`; its mask has the same stem with
    `mask_suffix`, and `read` opens it. Raises `GeotuneError` for an image without mask, a mask
    without image, and a pair of different size; `faults` may keep what is wrong with single files.
    """
    faults = faults or ErrorCollector()
    same = images.resolve() == masks.resolve()
    found = _by_name(images, image_suffix, other=mask_suffix if same else "")
    drawn = _by_name(masks, mask_suffix, other=image_suffix if same else "")
    _pair(images, masks, found, drawn, faults)
    chips = []
    for name, image in found.items():
        if name in drawn:
            with faults.catch(name, image):
                raster = open_raster(
                    image,
                    bands=bands,
                    wanted_bands=wanted_bands,
                    nodata=nodata,
                    resolution=resolution,
                )
                labels = read(drawn[name], raster, by_pixel=resolution is None)
                chips.append(Scene(name, raster, labels, group=name))
    return drop_inconsistent_bands(chips, faults)


def _by_name(folder: Path, suffix: str, other: str) -> dict[str, Path]:
    """Rasters of a folder by stem without `suffix`, without those whose stem ends in `other`."""
    if not folder.is_dir():
        raise GeotuneError(f"{folder}: there is no such folder; mend data.images or data.masks")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = path.stem
        if path.suffix.lower() not in RASTER_SUFFIXES or not stem.endswith(suffix):
            continue
        if other and stem.endswith(other) and not (suffix and len(suffix) > len(other)):
            continue
        name = stem.removesuffix(suffix)
        if name in found:
            raise GeotuneError(f"{found[name]} and {path}: two chips are called {name}; rename one")
        found[name] = path
    if not found:
        ending = f" whose stem ends in {suffix!r}" if suffix else ""
        raise GeotuneError(
            f"{folder}: holds no raster{ending} ({', '.join(RASTER_SUFFIXES)}); mend the path"
        )
    return found


def _pair(
    images: Path,
    masks: Path,
    found: Mapping[str, Path],
    drawn: Mapping[str, Path],
    faults: ErrorCollector,
) -> None:
    """Raise `GeotuneError` for what has no counterpart; `faults` may keep it, name by name."""
    by_stem = "; the two are matched by stem, without data.image_suffix and data.mask_suffix"
    if faults.keep and set(found) & set(drawn):
        for name in sorted(set(found) ^ set(drawn)):
            lone = found.get(name) or drawn[name]
            what, folder = ("mask", masks) if name in found else ("image", images)
            with faults.catch(name, lone):
                raise GeotuneError(f"{lone}: has no {what} in {folder}{by_stem}")
        return
    said = []
    for what, lacks, names, folder in (
        ("image", "mask", sorted(set(found) - set(drawn)), masks),
        ("mask", "image", sorted(set(drawn) - set(found)), images),
    ):
        if names:
            said.append(
                f"{folder}: {pluralize(len(names), what)} without {lacks} there: {join_some(names, 10)}"
            )
    if said:
        raise GeotuneError("; ".join(said) + by_stem)
