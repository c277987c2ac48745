"""Open chips (`data.kind: chips`): a folder of images and a folder of masks, matched by stem.

For tasks with a label per pixel. `labelled_images.py` opens images with one label each, and
`open_scenes.py` scenes found by pattern or listed in a table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from geotune.data.issues import ErrorCollector, Issue
from geotune.data.labels.base import LabelReader
from geotune.data.raster.open_raster import open_raster
from geotune.data.scenes.find import RASTER_SUFFIXES
from geotune.data.scenes.open_scenes import drop_inconsistent_bands
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError, check_exists
from geotune.utils.paths import existing_path, files_below, is_system_file
from geotune.utils.text import join_some, nfc, pluralize


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
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open the chips of two folders, sorted by name; each is a small scene.

    A chip's name is its image's stem without `image_suffix`, after its path in `images` if the
    images are in folders there; its mask has the same stem with
    `mask_suffix` and is opened by `read`. Raises `GeotuneError` for an image without a mask, a mask
    without an image, and a pair of different size; `errors` may collect those about single files.
    """
    errors = errors or ErrorCollector()
    images, masks = existing_path(images), existing_path(masks)
    same = images.resolve() == masks.resolve()
    image_files = files_by_stem("data.images", images, image_suffix, mask_suffix if same else "")
    mask_files = files_by_stem("data.masks", masks, mask_suffix, image_suffix if same else "")
    _check_pairs(images, masks, image_files, mask_files, errors)
    chips = []
    for name, image in image_files.items():
        if name in mask_files:
            with errors.catch(name, image):
                raster = open_raster(
                    image,
                    bands=bands,
                    wanted_bands=wanted_bands,
                    nodata=nodata,
                    resolution=resolution,
                )
                labels = read(mask_files[name], raster, by_pixel=resolution is None)
                chips.append(Scene(name, raster, labels, group=name))
    return drop_inconsistent_bands(chips, errors)


def files_by_stem(key: str, folder: Path, suffix: str, other: str) -> dict[str, Path]:
    """Rasters of a folder by stem without `suffix`, excluding stems that end in `other`.

    If it has only folders, rasters in them by their path in it.
    """
    check_exists(folder, "folder", key, folder=True)
    files: dict[str, Path] = {}
    for path in rasters_in(folder.iterdir(), folder) or rasters_in(files_below(folder), folder):
        stem = nfc(path.relative_to(folder).with_suffix("").as_posix())
        if not stem.endswith(suffix):
            continue
        if other and stem.endswith(other) and not (suffix and len(suffix) > len(other)):
            continue
        name = stem.removesuffix(suffix)
        if name in files:
            raise GeotuneError(
                f"{files[name]} and {path}: two chips are named {name}; rename one",
                code="scene-duplicate",
                file=path,
            )
        files[name] = path
    if not files:
        ending = f" whose stem ends in {suffix!r}" if suffix else ""
        raise GeotuneError(
            f"{folder}: contains no raster{ending} ({', '.join(RASTER_SUFFIXES)}); check the path",
            code="scenes-missing",
            key=key,
            file=folder,
        )
    return files


def unread_chips(
    images: Path, masks: Path, image_suffix: str = "", mask_suffix: str = ""
) -> list[Issue]:
    """Warnings if a folder of chips has folders of chips too, which are not read."""
    images, masks = existing_path(images), existing_path(masks)
    issues = []
    for key, folder, other, suffix in (
        ("data.images", images, masks, image_suffix),
        ("data.masks", masks, images, mask_suffix),
    ):
        if not rasters_in(folder.iterdir(), folder):
            continue
        own, others = folder.resolve(), other.resolve()
        unread = [
            path
            for path in rasters_in(files_below(folder), folder)
            if path.parent != folder
            and nfc(path.stem).endswith(suffix)
            and (others == own or others not in path.resolve().parents or others in own.parents)
        ]
        if unread:
            text = (
                f"{folder}: has rasters, so {pluralize(len(unread), 'raster')} in its folders are "
                f"not used: {join_some([*map(str, unread)])}; put all of them into folders, or "
                "give the folder that has them"
            )
            issues.append(Issue("warning", "files", text, unread[0], key=key))
    return issues


def rasters_in(paths: Iterable[Path], folder: Path) -> list[Path]:
    """The rasters among the paths in a folder, in order."""
    return [
        path
        for path in sorted(paths)
        if path.suffix.lower() in RASTER_SUFFIXES and not is_system_file(path.relative_to(folder))
    ]


def _check_pairs(
    images: Path,
    masks: Path,
    image_files: Mapping[str, Path],
    mask_files: Mapping[str, Path],
    errors: ErrorCollector,
) -> None:
    """Raise `GeotuneError` for files without a counterpart; `errors` may collect one per name."""
    rule = "; they are matched by stem, without data.image_suffix and data.mask_suffix"
    unmatched = sorted(set(image_files) ^ set(mask_files))
    if errors.keep and set(image_files) & set(mask_files):
        for name in unmatched:
            file = image_files.get(name) or mask_files[name]
            missing, folder = ("mask", masks) if name in image_files else ("image", images)
            with errors.catch(name, file):
                raise GeotuneError(
                    f"{file}: has no {missing} in {folder}{rule}", code="labels-missing", file=file
                )
    elif unmatched:
        problems = []
        for kind, missing, names, folder in (
            ("image", "mask", [name for name in unmatched if name in image_files], masks),
            ("mask", "image", [name for name in unmatched if name in mask_files], images),
        ):
            if names:
                count = pluralize(len(names), kind)
                problems.append(f"{folder}: no {missing} for {count}: {join_some(names, 10)}")
        raise GeotuneError("; ".join(problems) + rule, code="labels-missing", key="data.masks")
