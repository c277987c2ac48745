"""Random rasters, read as rasterio reads them: drivers, types, grids, nodata, masks.

Each seed draws a file of any driver and type, on a north-up, south-up, mirrored, rotated or sheared
grid or without georeference, with nodata values, masks or transparency. The image and labels are
compared with rasterio's own reading: bands and masks on the file's grid, and a `WarpedVRT` of each
band by itself on others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.io import MemoryFile
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as to_crs
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from helpers.errors import raises

SEEDS = [
    *range(25),
    *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(25, 400)),
]
INTEGERS = ["uint8", "int16", "uint16", "int32", "uint32"]
DRIVERS: dict[str, tuple[str, list[str]]] = {
    "GTiff": (".tif", [*INTEGERS, "int8", "float32", "float64"]),
    "COG": (".tif", [*INTEGERS, "float32"]),
    "VRT": (".vrt", [*INTEGERS, "float32", "float64"]),
    "HFA": (".img", [*INTEGERS, "float32", "float64"]),
    "ENVI": (".img", ["uint8", "int16", "float32"]),
    "PNG": (".png", ["uint8", "uint16"]),
    "JP2OpenJPEG": (".jp2", ["uint8", "uint16"]),
    "BMP": (".bmp", ["uint8"]),
}
"""The suffix and data types of each driver."""

WITHOUT_NODATA = ("JP2OpenJPEG", "BMP")
ANY_GRID = ("GTiff", "VRT")
"""Drivers that store grids of any orientation exactly."""

CLASSES = ("water", "land", "road")
BANDS = ("blue", "green", "red", "nir")


@dataclass
class RandomFile:
    """A random file, and its pixels as they should be read.

    Attributes:
        pixels: as stored, `(C, H, W)`.
        valid: which of them have data, `(C, H, W)`.
        all_or_none: bands whose nodata value is NaN, which excludes a pixel in every band.
    """

    path: Path
    pixels: NDArray[Any]
    valid: NDArray[np.bool_]
    all_or_none: list[bool]
    crs: CRS | None
    transform: Affine


def random_transform(rng: np.random.Generator, side: float, shape: tuple[int, int]) -> Affine:
    """Of pixels of `side` metres, centred near one location."""
    kind = rng.choice(["north-up", "south-up", "east-left", "rotated", "sheared", "oblong"])
    turn = {
        "north-up": Affine.scale(1, -1),
        "south-up": Affine.identity(),
        "east-left": Affine.scale(-1, -1),
        "rotated": Affine.rotation(rng.uniform(0, 360)) @ Affine.scale(1, -1),
        "sheared": Affine.shear(*rng.uniform(-20, 20, 2)) @ Affine.scale(1, -1),
        "oblong": Affine.scale(1.5, -1 / 1.5),
    }[str(kind)]
    height, width = shape
    centre = (400_000 + rng.uniform(-50, 50), 5_000_000 + rng.uniform(-50, 50))
    middle = Affine.translation(-width / 2, -height / 2)
    return Affine.translation(*centre) @ Affine.scale(side) @ turn @ middle


def random_values(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if dtype.startswith("f"):
        return rng.normal(0, 1000, shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(max(info.min, -2000), min(info.max, 5000), shape, endpoint=True).astype(
        dtype
    )


def random_nodata(rng: np.random.Generator, dtype: str) -> float | None:
    if rng.random() < 0.3:
        return None
    if dtype.startswith("f"):
        return float(rng.choice([-9999.0, math.nan, 0.0, -3.40282e38, 1e20]))
    info = np.iinfo(dtype)
    return float(rng.choice([0, info.max if info.bits < 32 else 9999, max(info.min, -999)]))


def random_file(
    folder: Path,
    rng: np.random.Generator,
    name: str = "a",
    *,
    like: RandomFile | None = None,
    classes: bool = False,
) -> RandomFile:
    """A random file, on the grid of the file `like`, with numbers or the indices of `CLASSES`."""
    driver = str(rng.choice(list(DRIVERS)))
    if like is not None and like.crs is not None:
        driver = str(rng.choice(ANY_GRID))
    suffix, dtypes = DRIVERS[driver]
    dtype = str(rng.choice(dtypes))
    height, width = like.pixels.shape[1:] if like else rng.integers(9, 70, 2)
    shape = int(height), int(width)
    count = int(rng.choice([1, 3] if driver in ("BMP", "PNG") else [1, 2, 3, 4]))
    pixels = random_values(rng, (count, *shape), dtype)
    if classes:
        count = 1
        pixels = rng.integers(0, len(CLASSES), (1, *shape)).astype(dtype)
    nodata = None if driver in WITHOUT_NODATA else random_nodata(rng, dtype)
    if classes and nodata is not None:
        nodata = 9.0
    valid = np.ones(pixels.shape, dtype=np.bool_)
    stated = [nodata] * count
    if nodata is not None:
        if driver == "VRT" and not classes and rng.random() < 0.5:  # a nodata value for each band
            stated = [random_nodata(rng, dtype) for _ in range(count)]
        for band, value in enumerate(stated):
            empty = rng.random(shape) < rng.choice([0.02, 0.3])
            if value is not None:
                # nodata in six digits stands for the smallest number of float32
                low = dtype == "float32" and value == -3.40282e38
                pixels[band][empty] = np.finfo(np.float32).min if low else value
                same = np.isnan(pixels[band]) if math.isnan(value) else pixels[band] == value
                valid[band] = ~(empty | same)
    all_or_none = [value is not None and math.isnan(value) for value in stated]
    georeferenced = driver not in ("PNG", "BMP") and rng.random() < 0.85
    if like is not None:
        georeferenced = like.crs is not None
    crs, transform = None, Affine.identity()
    if georeferenced:
        crs = CRS.from_epsg(int(rng.choice([32633, 32632, 3857, 2154])))
        transform = random_transform(rng, float(rng.choice([0.5, 10])), shape)
        if like is not None:
            crs, transform = like.crs, like.transform
    path = folder / f"{name}{suffix}"
    options: dict[str, Any] = {
        "driver": "GTiff" if driver == "VRT" else driver,
        "height": shape[0],
        "width": shape[1],
        "count": count,
        "dtype": dtype,
        "nodata": None if driver == "VRT" else nodata,
        **({"crs": crs, "transform": transform} if georeferenced else {}),
        **({"quality": 100, "reversible": True} if driver == "JP2OpenJPEG" else {}),
    }
    stored = path.with_suffix(".tif") if driver == "VRT" else path
    internal = rasterio.Env(GDAL_TIFF_INTERNAL_MASK=bool(rng.random() < 0.5))
    with internal, rasterio.open(stored, "w", **options) as file:
        file.write(pixels)
        if driver == "GTiff" and rng.random() < 0.4:
            hidden = rng.random(shape) < 0.2
            file.write_mask(~hidden)
            valid &= ~hidden
    if driver == "VRT":
        write_vrt(path, stored, dtype, stated)
    with rasterio.open(path) as file:  # some drivers store no oblique grids
        return RandomFile(path, pixels, valid, all_or_none, file.crs, file.transform)


def write_vrt(path: Path, stored: Path, dtype: str, nodata: list[float | None]) -> None:
    names = {"uint8": "Byte", "uint16": "UInt16", "uint32": "UInt32", "int16": "Int16"}
    kind = names.get(dtype) or dtype.title()
    with rasterio.open(stored) as file:
        crs = f"<SRS>{file.crs.to_wkt()}</SRS>" if file.crs else ""
        grid = ", ".join(map(repr, file.transform.to_gdal()))
        size = f'rasterXSize="{file.width}" rasterYSize="{file.height}"'
    if crs:
        crs += f"<GeoTransform>{grid}</GeoTransform>"
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}">'
        + ("" if value is None else f"<NoDataValue>{value!r}</NoDataValue>")
        + f'<SimpleSource><SourceFilename relativeToVRT="1">{stored.name}</SourceFilename>'
        f"<SourceBand>{i}</SourceBand></SimpleSource></VRTRasterBand>"
        for i, value in enumerate(nodata, 1)
    )
    path.write_text(f"<VRTDataset {size}>{crs}{bands}</VRTDataset>")


def warped(
    pixels: NDArray[Any],
    file: RandomFile,
    grid: tuple[CRS | None, Affine, tuple[int, int]],
    method: Any,
    window: Window,
) -> NDArray[Any]:
    """A window of a band, NaN without data, on another grid, as a `WarpedVRT` reads it."""
    crs, transform, (height, width) = grid
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "count": 1,
        "dtype": pixels.dtype,
        "crs": file.crs,
        "transform": file.transform,
        "nodata": math.nan,
    }
    with MemoryFile() as memory:
        with memory.open(**profile) as written:
            written.write(pixels, 1)
        with (
            memory.open() as source,
            WarpedVRT(
                source,
                crs=crs,
                transform=transform,
                width=width,
                height=height,
                resampling=method,
                nodata=math.nan,
                **scales(source, grid),
            ) as vrt,
        ):
            inner = window.clip((height, width))
            values = np.full((window.height, window.width), np.nan, dtype=np.float32)
            if inner is not None:
                part = RasterioWindow(inner.col, inner.row, inner.width, inner.height)
                values[inner.slices_in(window)] = vrt.read(1, window=part)
            return values


def scales(source: Any, grid: tuple[CRS | None, Affine, tuple[int, int]]) -> dict[str, float]:
    """The constant scale of GDAL's kernel: grid pixels per source pixel in the grid's middle."""
    crs, transform, (height, width) = grid
    points = [(width / 2, height / 2), (width / 2 + 1, height / 2), (width / 2, height / 2 + 1)]
    located = [transform @ point for point in points]
    if crs is not None and crs != source.crs:
        located = list(zip(*to_crs(crs, source.crs, *zip(*located, strict=True)), strict=True))
    (x0, y0), *others = (~source.transform @ point for point in located)
    columns, rows = (sum(abs(p[axis] - (x0, y0)[axis]) for p in others) for axis in (0, 1))
    return {"XSCALE": 1 / columns, "YSCALE": 1 / rows}


def expected_image(file: RandomFile) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        values = file.pixels.astype(np.float32)
    return np.where(file.valid, values, np.float32(np.nan))


def exclude(file: RandomFile, order: list[int], image: NDArray[Any]) -> NDArray[Any]:
    """NaN in every band of the file in this order where one is NaN that counts for all."""
    deciding = [file.all_or_none[i] for i in order]
    return np.where(np.isnan(image[deciding]).any(axis=0), np.nan, image)


def random_window(rng: np.random.Generator, shape: tuple[int, int]) -> Window:
    row, col = (int(rng.integers(-5, side)) for side in shape)
    return Window(row, col, int(rng.integers(1, 40)), int(rng.integers(1, 40)))


def cut(image: NDArray[Any], window: Window, fill: float) -> NDArray[Any]:
    """A window of `(..., H, W)`, `fill` outside."""
    result = np.full((*image.shape[:-2], window.height, window.width), fill, dtype=image.dtype)
    inner = window.clip(image.shape[-2:])
    if inner is not None:
        rows, cols = inner.slices_in(window)
        rows_of, cols_of = inner.slices_in(Window(0, 0, 0, 0))
        result[..., rows, cols] = image[..., rows_of, cols_of]
    return result


@pytest.mark.parametrize("seed", SEEDS)
def test_random_images_are_read_as_rasterio_reads_them(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    file = random_file(tmp_path, rng)
    names = BANDS[: len(file.pixels)]
    wanted = [str(band) for band in rng.permutation(names)[: rng.integers(1, len(names) + 1)]]
    order = [names.index(band) for band in wanted]
    source = open_raster(file.path, bands=names, wanted_bands=wanted)
    expected = expected_image(file)
    with rasterio.open(file.path) as handle:  # the expectation is what rasterio reads
        assert (handle.read() == file.pixels)[file.valid].all() and handle.crs == file.crs
        assert np.allclose(tuple(handle.transform), tuple(file.transform), rtol=1e-9)
        if ColorInterp.alpha not in handle.colorinterp:  # GDAL takes near infrared for alpha
            assert not (file.valid & (handle.read_masks() == 0)).any()
    assert source.georeferenced == (file.crs is not None)
    for _ in range(3):
        window = random_window(rng, source.shape)
        block = source.read_block(window)
        reference = exclude(file, order, cut(expected[order], window, np.nan))
        np.testing.assert_array_equal(block.image, reference)
        assert not block.invalid.any()
    if file.crs is None:
        return
    assert source.gsd_m is not None
    resolution = source.gsd_m * float(rng.choice([0.4, 1.7, 3]))
    coarse = open_raster(file.path, bands=names, wanted_bands=wanted, resolution=resolution)
    assert coarse.gsd_m == pytest.approx(resolution, rel=0.02)
    assert coarse.crs is not None
    corners = [(0, 0), (1, 0), (0, 1), (1, 1)]
    for x, y in corners:  # the grids cover the same ground, to a pixel
        one = source.transform @ (x * source.shape[1], y * source.shape[0])
        other = coarse.transform @ (x * coarse.shape[1], y * coarse.shape[0])
        pixel = math.sqrt(abs(coarse.transform.determinant))
        assert math.dist(one, other) <= 1.5 * pixel
    grid = (coarse.crs, coarse.transform, coarse.shape)
    for window in (Window(0, 0, *coarse.shape), random_window(rng, coarse.shape)):
        reference = np.stack(
            [warped(expected[i], file, grid, Resampling.bilinear, window) for i in order]
        )
        reference = exclude(file, order, reference)
        np.testing.assert_allclose(coarse.read(window), reference, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", ["numbers", "classes"])
def test_random_labels_are_read_as_rasterio_reads_them(
    tmp_path: Path, kind: str, seed: int
) -> None:
    """On the grid of a random scene, or another one."""
    rng = np.random.default_rng(seed)
    scene_file = random_file(tmp_path, rng, "scene")
    scene = open_raster(scene_file.path)
    same_grid = scene_file if scene.crs is None or rng.random() < 0.2 else None
    file = random_file(tmp_path, rng, "labels", like=same_grid, classes=kind == "classes")
    band = 0 if kind == "classes" else int(rng.integers(len(file.pixels)))
    values = expected_image(file)[band]
    located = file.crs is not None and scene.crs is not None
    if not located and values.shape != scene.shape:
        with raises("grid-mismatch", file=file.path):
            open_regression_labels(file.path, scene, quantity="height", band=band + 1)
        return
    grid = (scene.crs, scene.transform, scene.shape)
    method = Resampling.nearest if kind == "classes" else Resampling.bilinear
    for window in (Window(0, 0, *scene.shape), random_window(rng, scene.shape)):
        expected = (
            warped(values, file, grid, method, window) if located else cut(values, window, np.nan)
        )
        if kind == "numbers":
            numbers = open_regression_labels(file.path, scene, quantity="height", band=band + 1)
            np.testing.assert_allclose(numbers.read(window).values, expected, rtol=1e-4, atol=1e-2)
        else:
            labels = open_labels(file.path, scene, classes=CLASSES)
            classes = np.where(np.isnan(expected), 255, expected)
            np.testing.assert_array_equal(labels.read(window).mask, classes)
