"""From a named data set to scenes, by what its labels are for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from geotune.data.annotations.annotated_scenes import build_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.issues import ErrorCollector
from geotune.data.labels.image_labels import ImageLabels
from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.targets import ImageClass
from geotune.data.published.missing import missing_files_error
from geotune.data.published.samples import PublishedImage, find_images, label_file
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.find import first_file
from geotune.data.scenes.scene import Scene
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
    """Scenes of the data set under `root`, sorted by name, each with its part and region.

    Args:
        about: the data set.
        root: where it was unpacked.
        classes: the data set's, in any order; of objects some of them will do.
        wanted_bands: what to read, in this order; by default all.
        published: only what is in the published split `split`.
        split: one of `about.divisions`, by default the first.
        ignore_values: of masks, beside those that the data set itself does not count.
        options: how objects are read.
        errors: may keep what is wrong with single files.

    Raises `GeotuneError` for missing files, with the download source and the expected layout, and
    for invalid files.
    """
    bands = list(info.bands if wanted_bands is None else wanted_bands)
    unknown = [band for band in bands if band not in info.bands]
    if unknown:
        raise GeotuneError(
            f"backbone.bands: {info.name} has no band {', '.join(unknown)}; it has "
            f"{', '.join(info.bands)}",
            code="band-missing",
            key="backbone.bands",
        )
    held = bands if info.grid_band in ("", *bands) else [*bands, info.grid_band]
    samples = find_images(info, root, bands=held, published=published, split=split)
    errors = errors or ErrorCollector()
    opened: Opened = []
    for sample in samples:
        with errors.catch(sample.name, first_file(sample.files)):
            opened.append((sample, _raster(info, sample, bands)))
    if info.task == "detect":
        scenes = _objects(info, root, opened, classes, options or AnnotationOptions(), errors)
    elif info.task == "classify":
        scenes = _whole(info, root, opened, classes)
    else:
        scenes = _masks(info, root, opened, classes, ignore_values, errors)
    by_name = {sample.name: sample for sample in samples}
    return [
        replace(scene, group=by_name[scene.name].region, split=by_name[scene.name].split)
        for scene in scenes
    ]


def _raster(about: DatasetInfo, sample: PublishedImage, bands: Sequence[str]) -> RasterSource:
    if not isinstance(sample.files, Path):
        every = open_raster(sample.files, wanted_bands=list(sample.files), nodata=about.nodata)
        return every.select(bands)
    if about.grey:
        source = open_raster(sample.files, nodata=about.nodata)
        if len(source.bands) == 1:
            return replace(source, bands=tuple(bands), band_files=source.band_files * len(bands))
    return open_raster(sample.files, bands=about.bands, wanted_bands=bands, nodata=about.nodata)


def _masks(
    about: DatasetInfo,
    root: Path,
    opened: Opened,
    classes: Sequence[str],
    ignore_values: Sequence[int],
    errors: ErrorCollector,
) -> list[Scene]:
    own = {name: list(about.class_values.get(name, [i])) for i, name in enumerate(about.classes)}
    scenes = []
    for sample, raster in opened:
        with errors.catch(sample.name, raster.path):
            labels = open_labels(
                label_file(about, root, sample),
                raster,
                classes=classes,
                class_values=own,
                ignore_values=[*about.ignore_values, *ignore_values],
                by_pixel=True,
            )
            scenes.append(Scene(sample.name, raster, labels, sample.name))
    return scenes


def _objects(
    about: DatasetInfo,
    root: Path,
    opened: Opened,
    classes: Sequence[str],
    options: AnnotationOptions,
    errors: ErrorCollector,
) -> list[Scene]:
    without = about.without_objects.items()
    files = {
        sample.name: raster.path.with_suffix("")  # there is no such file: no object
        if without and without <= sample.fields.items()
        else label_file(about, root, sample, oriented=options.oriented)
        for sample, raster in opened
    }
    return build_annotated_scenes(
        {sample.name: raster for sample, raster in opened},
        files,
        classes=classes,
        options=options,
        format=about.format,
        class_values={name: list(about.class_values[name]) for name in classes}
        if about.class_values
        else None,
        notes=_grey(about, opened),
        errors=errors,
    )


def _whole(about: DatasetInfo, root: Path, opened: Opened, classes: Sequence[str]) -> list[Scene]:
    scenes = []
    for sample, raster in opened:
        label = sample.fields["label"]
        if label not in classes:
            raise missing_files_error(about, root, f"{raster.path} lies in the folder of no class")
        labels = ImageLabels(raster.path.parent, tuple(classes), ImageClass(classes.index(label)))
        scenes.append(Scene(sample.name, raster, labels, sample.name))
    return scenes


def _grey(about: DatasetInfo, opened: Opened) -> list[str]:
    """A note on images whose bands are one and the same."""
    grey = [
        s.name
        for s, r in opened
        if len(r.band_files) > len({place.index for place in r.band_files})
    ]
    if not (about.grey and grey):
        return []
    return [f"grey images, whose bands are the same: {len(grey)} ({join_some(grey, 3)})"]
