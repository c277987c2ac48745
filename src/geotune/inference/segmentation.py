"""Map the classes of a scene, with probabilities and polygons, in bounded memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.inference.class_blocks import ClassBlock, ClassLayers, class_blocks
from geotune.inference.geotiff import (
    NODATA,
    PROBABILITY_SCALE,
    GeoTiffWriter,
    atomic_output,
    bounded_gdal_cache,
    check_file_stem,
    describe_classes,
    describe_probabilities,
    scene_notes,
    write_categories,
    write_errors,
)
from geotune.inference.novelty_map import NoveltyTracker
from geotune.inference.polygon_writer import LAYER, PolygonOptions, write_polygons
from geotune.inference.polygonize import polygonize
from geotune.inference.qgis import MapLayer, class_map_style, class_style, value_style, write_qgis
from geotune.inference.sliding_window import ModelFn, WindowOptions
from geotune.utils.colors import Color, is_background, palette
from geotune.utils.paths import ogr_path


@dataclass(frozen=True)
class ClassMap:
    """Result of a prediction.

    Attributes:
        name: the scene's name.
        classes_path: Cloud-Optimised GeoTIFF of class indices, uint8, 255 without data.
        probabilities_path: Cloud-Optimised GeoTIFF, one band per class, uint8: 254 p, 255 no data.
        uncertainty_path: Cloud-Optimised GeoTIFF, bands `entropy` and, of several predictions,
            `disagreement`; uint8: 254 u, 255 no data.
        polygons_path: GeoPackage.
        project_path: QGIS project.
        windows: number of windows computed.
        seconds: wall time.
        pixels: number of pixels of each class.
        nodata_pixels: number of pixels without data.
        polygons: number of polygons; None if they were not requested.
        notes: for the user.
        further_paths: files in further formats, see `FurtherFormats`.
        item_path: STAC item, if one was requested.
        novelty_path: Cloud-Optimised GeoTIFF of the novelty, see `NoveltyTracker`.
    """

    name: str
    classes_path: Path
    probabilities_path: Path | None
    uncertainty_path: Path | None
    polygons_path: Path | None
    project_path: Path | None
    windows: int
    seconds: float
    pixels: dict[str, int]
    nodata_pixels: int
    polygons: int | None
    notes: tuple[str, ...]
    further_paths: tuple[Path, ...] = ()
    item_path: Path | None = None
    novelty_path: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The written files, the class map first."""
        others = (
            self.probabilities_path,
            self.uncertainty_path,
            self.novelty_path,
            self.polygons_path,
            self.project_path,
            self.item_path,
        )
        written = [path for path in others if path is not None]
        return [self.classes_path, *written, *self.further_paths]

    @property
    def summary(self) -> str:
        """A short description for display."""
        total = max(1, sum(self.pixels.values()))
        return ", ".join(f"{name} {count / total:.1%}" for name, count in self.pixels.items())


def segment_scene(
    model: ModelFn,
    source: RasterSource,
    out_dir: Path,
    options: WindowOptions,
    *,
    classes: Sequence[str],
    name: str,
    colors: Sequence[Color] | None = None,
    probabilities: bool = False,
    uncertainty: bool = False,
    members: int = 1,
    polygons: bool | PolygonOptions = True,
    thresholds: Mapping[int, float] | None = None,
    qgis: bool = True,
) -> ClassMap:
    """Predict a scene and write its map, see `class_blocks` and `write_class_map`.

    Args:
        model: maps images to class probabilities, see `class_blocks`.
        source: the scene.
        out_dir: created if needed.
        options: see `WindowOptions`.
        classes: names; the first one gets no polygons if it is named background.
        name: file stem.
        colors: of each class; by default `geotune.utils.colors.palette(classes)`.
        probabilities: whether to write probabilities.
        uncertainty: whether to write `<name>_uncertainty.tif`, see `ClassLayers`.
        members: number of predictions that the model averages.
        polygons: whether to write polygons, and how.
        thresholds: probabilities from which pixels get a class, see `ClassLayers`.
        qgis: whether to write styles and project.

    Raises `GeotuneError` for values out of range, missing bands, outputs of another shape or not
    finite, and files that cannot be read or written.
    """
    layers = ClassLayers(
        classes=classes,
        probabilities=probabilities,
        uncertainty=uncertainty,
        members=members,
        thresholds=thresholds or {},
    )
    return write_class_map(
        class_blocks(model, source, options, layers),
        source,
        out_dir,
        layers,
        name=name,
        colors=colors,
        polygons=polygons,
        qgis=qgis,
    )


def write_class_map(
    blocks: Iterable[ClassBlock],
    source: RasterSource,
    out_dir: Path,
    layers: ClassLayers,
    *,
    name: str,
    colors: Sequence[Color] | None = None,
    polygons: bool | PolygonOptions = True,
    qgis: bool = True,
    novelty: NoveltyTracker | None = None,
) -> ClassMap:
    """Write `<name>_classes.tif`, `<name>_probabilities.tif` and `<name>_polygons.gpkg` of a scene.

    With `qgis` also a style beside each, and the project `<name>.qgs`. The files have the CRS and
    transform of the scene. They appear only when all are complete, and replace those of an earlier
    prediction.

    Args:
        blocks: of the map, each pixel once.
        layers: of the blocks.
        novelty: has the scene's windows; writes `<name>_novelty.tif`.

    The other arguments and errors are those of `segment_scene`.
    """
    started = time.perf_counter()
    check_file_stem(name)
    classes = layers.classes
    colors = palette(classes) if colors is None else colors
    if len(colors) != len(classes):
        raise GeotuneError(
            f"colors: found {len(colors)}, expected one for each of {len(classes)} classes",
            code="class-count",
        )
    outlines = polygons if isinstance(polygons, PolygonOptions) else PolygonOptions()
    outlines.check_scene(source.crs, source.transform, source.shape)
    classes_path = out_dir / f"{name}_classes.tif"
    probabilities_path = out_dir / f"{name}_probabilities.tif"
    uncertainty_path = out_dir / f"{name}_uncertainty.tif"
    novelty_path = out_dir / f"{name}_novelty.tif"
    polygons_path = out_dir / f"{name}_polygons.gpkg"
    if polygons:
        ogr_path(polygons_path)  # before the work
    probabilities, uncertainty = layers.probabilities, layers.uncertainty
    counts = np.zeros(NODATA + 1, dtype=np.int64)
    windows, num_polygons = 0, None
    with bounded_gdal_cache(), atomic_output(out_dir) as folder, ExitStack() as files:

        def new_map(path: Path, bands: Sequence[str]) -> GeoTiffWriter:
            return files.enter_context(GeoTiffWriter.for_scene(folder / path.name, source, bands))

        class_map = new_map(classes_path, ["class"])
        describe_classes(class_map, classes, colors)
        probability_map = new_map(probabilities_path, classes) if probabilities else None
        if probability_map is not None:
            describe_probabilities(probability_map)
        uncertainty_map = new_map(uncertainty_path, layers.measures) if uncertainty else None
        if uncertainty_map is not None:
            describe_probabilities(uncertainty_map, "uncertainty")
        scores = _temporary(folder, source.shape) if polygons else None
        for block in blocks:
            if scores is not None:
                rows = slice(block.row, block.row + block.classes.shape[0])
                columns = slice(block.col, block.col + block.classes.shape[1])
                scores[rows, columns] = block.scores
            counts += np.bincount(block.classes.ravel(), minlength=len(counts))
            windows += block.windows
            class_map.write(block.row, block.col, block.classes[None])
            for map_file, values in (
                (probability_map, block.probabilities),
                (uncertainty_map, block.uncertainty),
            ):
                if map_file is not None and values is not None:
                    map_file.write(block.row, block.col, values)
        class_map.finish("MODE")
        write_categories(class_map.path, classes)
        if probability_map is not None:
            probability_map.finish("AVERAGE")
        if uncertainty_map is not None:
            uncertainty_map.finish("AVERAGE")
        if scores is not None:
            num_polygons = _write_polygons(
                class_map.path, scores, folder / polygons_path.name, classes, source, outlines
            )
            Path(str(scores.filename)).unlink()
        if novelty is not None:
            novelty.write(folder, name, source)
        if qgis:
            maps = [MapLayer(classes_path, "classes", class_map_style(classes, colors))]
            if polygons:
                style = class_style("class", classes, colors, "Polygon")
                maps.insert(0, MapLayer(polygons_path, LAYER, style, "Polygon", LAYER))
            if probabilities:
                title, style = f"probability of {classes[-1]}", value_style(0, 1, band=len(classes))
                maps.append(MapLayer(probabilities_path, title, style, visible=False))
            if uncertainty:
                style = value_style(0, 1, band=len(layers.measures))
                maps.append(MapLayer(uncertainty_path, layers.measures[-1], style, visible=False))
            if novelty is not None:
                maps.append(novelty.layer(novelty_path))
            write_qgis(folder, out_dir, name, source, maps)
    return ClassMap(
        name=name,
        classes_path=classes_path,
        probabilities_path=probabilities_path if probabilities else None,
        uncertainty_path=uncertainty_path if uncertainty else None,
        polygons_path=polygons_path if polygons else None,
        project_path=out_dir / f"{name}.qgs" if qgis else None,
        windows=windows,
        seconds=time.perf_counter() - started,
        pixels={title: int(counts[index]) for index, title in enumerate(classes)},
        nodata_pixels=int(counts[NODATA]),
        polygons=num_polygons,
        notes=(
            *scene_notes(source, windows),
            *(
                (f"{polygons_path}: the scene has no CRS, so area_m2 is empty",)
                if polygons and source.crs is None
                else ()
            ),
            *(
                f"{path}: belongs to an earlier prediction; delete it or predict {what}"
                for what, path, written in (
                    ("probabilities", probabilities_path, probabilities),
                    ("uncertainty", uncertainty_path, uncertainty),
                    ("novelty", novelty_path, novelty is not None),
                    ("polygons", polygons_path, polygons),
                )
                if not written and path.exists()
            ),
        ),
        novelty_path=None if novelty is None else novelty_path,
    )


def _temporary(folder: Path, shape: tuple[int, int]) -> np.memmap[Any, np.dtype[np.uint8]]:
    """Scores of all pixels on disk, as a scene may be larger than the memory."""
    path, (height, width) = folder / "scores", shape
    with write_errors(path), path.open("wb") as file:
        for _ in range(height):  # takes the space: without any, a write to memory ends the process
            file.write(bytes(width))
    return np.memmap(path, dtype=np.uint8, mode="r+", shape=shape)


def _write_polygons(
    map_path: Path,
    scores: NDArray[np.uint8],
    path: Path,
    classes: Sequence[str],
    source: RasterSource,
    options: PolygonOptions,
) -> int:
    skip = {NODATA} | ({0} if is_background(classes[0]) else set())
    with rasterio.open(map_path) as file:

        def read(top: int, bottom: int) -> NDArray[np.uint8]:
            window = rasterio.windows.Window(0, top, file.width, bottom - top)
            rows: NDArray[np.uint8] = file.read(1, window=window)
            return rows

        def read_scores(top: int, bottom: int) -> NDArray[np.float32]:
            return scores[top:bottom].astype(np.float32) / np.float32(PROBABILITY_SCALE)

        return write_polygons(
            path,
            polygonize(read, source.shape, frozenset(skip), read_scores=read_scores),
            classes,
            shape=source.shape,
            crs=source.crs,
            transform=source.transform,
            options=options,
        )
