"""Open the scenes of a published data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rasterio.transform import Affine

from geotune.data.annotations.annotated_scenes import build_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.issues import ErrorCollector
from geotune.data.labels.image_labels import ImageLabels
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.targets import ImageClass
from geotune.data.published.published_images import PublishedImage, find_images, label_file
from geotune.data.published.published_split import missing_files_error
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import first_file
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.unlabelled import unlabelled_scene
from geotune.datasets.base import DatasetInfo
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

Opened = list[tuple[PublishedImage, RasterSource]]


def open_published_scenes(
    info: DatasetInfo,
    root: Path,
    *,
    classes: Sequence[str],
    wanted_bands: Sequence[str] | None = None,
    published: bool = True,
    split: str | None = None,
    ignore_values: Sequence[int] = (),
    options: AnnotationOptions | None = None,
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """Open the scenes under `root`, sorted by name, with their splits and regions.

    Args:
        info: description of the data set.
        root: folder of the extracted files.
        classes: the classes of the data set in any order; of objects, possibly a subset.
        wanted_bands: bands to read, in this order; by default all.
        published: open only the images of the published split `split`.
        split: one of `info.splits`, by default the first.
        ignore_values: mask values to ignore, in addition to those of the data set.
        options: how objects are read.
        errors: may collect the errors of single files.

    Raises `GeotuneError` for missing files, with the download source and the expected layout, and
    for invalid files.
    """
    errors = errors or ErrorCollector()
    opened = _open_images(info, root, wanted_bands, published, split, errors)
    if info.task == "detect":
        scenes = _detection_scenes(
            info, root, opened, classes, options or AnnotationOptions(), errors
        )
    elif info.task == "classify":
        scenes = _classification_scenes(info, root, opened, classes)
    else:
        scenes = _segmentation_scenes(info, root, opened, classes, ignore_values, errors)
    by_name = {image.name: image for image, _ in opened}
    return [
        replace(scene, group=by_name[scene.name].region, split=by_name[scene.name].split)
        for scene in scenes
    ]


def open_published_images(
    info: DatasetInfo,
    root: Path,
    *,
    wanted_bands: Sequence[str] | None = None,
    published: bool = True,
    split: str | None = None,
    errors: ErrorCollector | None = None,
) -> list[Scene]:
    """The scenes of `open_published_scenes` without their labels, which need not exist."""
    opened = _open_images(info, root, wanted_bands, published, split, errors or ErrorCollector())
    return [
        unlabelled_scene(image.name, raster, image.region, image.split) for image, raster in opened
    ]


def _open_images(
    info: DatasetInfo,
    root: Path,
    wanted_bands: Sequence[str] | None,
    published: bool,
    split: str | None,
    errors: ErrorCollector,
) -> Opened:
    """The images of a published data set; see `open_published_scenes`."""
    bands = list(info.bands if wanted_bands is None else wanted_bands)
    unknown = [band for band in bands if band not in info.bands]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: {info.name} has no band {', '.join(unknown)}; it has "
            f"{', '.join(info.bands)}",
            code="band-missing",
            key="backbone.bands",
        )
    to_find = bands if info.grid_band in ("", *bands) else [*bands, info.grid_band]
    images = find_images(info, root, bands=to_find, published=published, split=split)
    opened: Opened = []
    for image in images:
        with errors.catch(image.name, first_file(image.files)):
            source = _open_image(info, image, bands)
            if not info.georeferenced:
                source = replace(source, crs=None, transform=Affine.identity())
            if image.region in info.dates:
                source = replace(source, acquired=info.dates[image.region])
            opened.append((image, source))
    return opened


def _open_image(info: DatasetInfo, image: PublishedImage, bands: Sequence[str]) -> RasterSource:
    if not isinstance(image.files, Path):
        source = open_raster(image.files, wanted_bands=list(image.files), nodata=info.nodata)
        return source.select(bands)
    if info.grey:
        source = open_raster(image.files, nodata=info.nodata)
        if len(source.bands) == 1:
            return replace(source, bands=tuple(bands), band_files=source.band_files * len(bands))
    try:
        return open_raster(image.files, bands=info.bands, wanted_bands=bands, nodata=info.nodata)
    except GeotuneError as error:
        if error.code != "band-names":
            raise
        raise GeotuneError(
            f"{image.files}: has other bands than published ({', '.join(info.bands)}); download it "
            "again",
            code=error.code,
            file=image.files,
        ) from error


def _segmentation_scenes(
    info: DatasetInfo,
    root: Path,
    opened: Opened,
    classes: Sequence[str],
    ignore_values: Sequence[int],
    errors: ErrorCollector,
) -> list[Scene]:
    values = {name: list(info.class_values.get(name, [i])) for i, name in enumerate(info.classes)}
    scenes = []
    for image, raster in opened:
        with errors.catch(image.name, raster.path):
            labels = open_labels(
                label_file(info, root, image),
                raster,
                classes=classes,
                class_values=values,
                ignore_values=[*info.ignore_values, *ignore_values],
                by_pixel=True,
            )
            scenes.append(Scene(image.name, raster, labels, image.name))
    return scenes


def _detection_scenes(
    info: DatasetInfo,
    root: Path,
    opened: Opened,
    classes: Sequence[str],
    options: AnnotationOptions,
    errors: ErrorCollector,
) -> list[Scene]:
    without_objects = info.without_objects.items()
    files = {
        image.name: raster.path.with_suffix("")  # a missing file: no object
        if without_objects and without_objects <= image.fields.items()
        else label_file(info, root, image, oriented=options.oriented)
        for image, raster in opened
    }
    values = (
        {name: list(info.class_values[name]) for name in classes} if info.class_values else None
    )
    return build_annotated_scenes(
        {image.name: raster for image, raster in opened},
        files,
        classes=classes,
        options=options,
        format=info.format,
        class_values=values,
        notes=_greyscale_notes(info, opened),
        errors=errors,
    )


def _classification_scenes(
    info: DatasetInfo, root: Path, opened: Opened, classes: Sequence[str]
) -> list[Scene]:
    scenes = []
    for image, raster in opened:
        label = image.fields["label"]
        if label not in classes:
            raise missing_files_error(info, root, f"the folder of {raster.path} is not a class")
        labels = ImageLabels(raster.path.parent, tuple(classes), ImageClass(classes.index(label)))
        scenes.append(Scene(image.name, raster, labels, image.name))
    return scenes


def _greyscale_notes(info: DatasetInfo, opened: Opened) -> list[str]:
    """A note on greyscale images, whose only band is repeated."""
    grey = [
        image.name
        for image, raster in opened
        if len(raster.band_files) > len({file.index for file in raster.band_files})
    ]
    if not (info.grey and grey):
        return []
    return [f"greyscale images, read with equal bands: {len(grey)} ({join_some(grey, 3)})"]
