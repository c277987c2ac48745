"""Notes on images that are unlike those of the training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.transform import from_origin

from geotune.adapter_config import TrainingImages
from geotune.config import parse_recipe
from geotune.data.checks.scanned import scan_splits
from geotune.data.checks.value_checks import check_band_values
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.scene import Scene
from geotune.factory.build_data import build_data
from geotune.inference.input_check import compare_images, compare_pixels, training_images

BANDS = ("B02", "B04", "B08")
MEAN, STD = (900.0, 1500.0, 3000.0), (300.0, 800.0, 1200.0)
TRAINED = TrainingImages(mean=list(MEAN), std=list(STD), dtypes=["uint16"], pixel_m=(10.0, 10.0))


def numbers(side: int = 80) -> NDArray[np.float64]:
    noise = np.random.default_rng(0).standard_normal((3, side, side))
    values = np.array(MEAN)[:, None, None] + np.array(STD)[:, None, None] * noise
    return np.maximum(values, 1)


def scene(
    folder: Path, values: NDArray[Any], dtype: str, pixel_m: float = 10, **options: Any
) -> RasterSource:
    path = folder / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=values.shape[1], width=values.shape[2],
        dtype=dtype, crs="EPSG:32633", transform=from_origin(5e5, 5e6, pixel_m, pixel_m),
    ) as file:  # fmt: skip
        file.write(values.astype(dtype))
    return open_raster(path, bands=BANDS, **options)


def notes(source: RasterSource, trained: TrainingImages = TRAINED) -> list[str]:
    return compare_images({"scene": source}, trained)


@pytest.mark.parametrize("side", [80, 700])
def test_arrays_are_compared_like_files(tmp_path: Path, side: int) -> None:
    values = numbers(side)
    pixels = values[None].astype("float32")
    for dtype in ("float32", "uint16"):
        assert compare_pixels(pixels, dtype, BANDS, TRAINED) is None
    found = compare_pixels(pixels / 10_000, "float64", BANDS, TRAINED)
    assert found is not None and "10,000 times smaller" in found and found.startswith("pixels: ")
    [note] = notes(scene(tmp_path, values / 10_000, "float32"))
    assert note.partition(", 10,000")[2] == found.partition(", 10,000")[2]
    bytes_note = compare_pixels(pixels / 12, "uint8", BANDS, TRAINED)
    assert bytes_note is not None and "(uint8 values)" in bytes_note
    assert compare_pixels(pixels / 12, "float32", BANDS, TRAINED) is None
    dates = np.stack([pixels, np.full_like(pixels, np.nan)], axis=2)
    assert compare_pixels(dates, "float32", BANDS, TRAINED) is None
    assert compare_pixels(np.full_like(pixels, np.nan), "float32", BANDS, TRAINED) is None


def test_images_with_a_palette_are_noted(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (64, 64)).astype("uint8")
    path, profile = tmp_path / "a.png", {"count": 1, "height": 64, "width": 64, "dtype": "uint8"}
    trained = TrainingImages(mean=[1.5], std=[1.0], dtypes=["uint8"])
    for colors in ([(i, i, i, 255) for i in range(4)], [(9, 8, 7, 255)] * 4):
        with rasterio.open(path, "w", driver="PNG", **profile) as file:
            file.write(values, 1)
            file.write_colormap(1, dict(enumerate(colors)))
        found = compare_images({"a": open_raster(path)}, trained)
        assert len(found) == (colors[0] != (0, 0, 0, 255)), found
    assert "has a palette, and is read by index" in found[0] and "a.png new.tif" in found[0]


def test_images_that_viewers_turn_are_noted(tmp_path: Path) -> None:
    """By `check` and `predict`; drones write such files."""
    values = np.random.default_rng(0).integers(0, 255, (64, 48, 3)).astype("uint8")
    trained = TrainingImages(mean=[127.0] * 3, std=[74.0] * 3, dtypes=["uint8"])
    Image.fromarray(values[..., 0] // 128).save(tmp_path / "mask.png")
    for orientation in (None, 1, 3, 6):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        Image.fromarray(values).save(tmp_path / "a.jpg", exif=exif, quality=100)
        source = open_raster(tmp_path / "a.jpg", bands=["red", "green", "blue"])
        assert source.shape == (64, 48)
        found = compare_images({"a": source}, trained)
        labels = open_labels(tmp_path / "mask.png", source, classes=["land", "sea"])
        image = Scene("a", source, labels, "a")
        scanned = scan_splits({"train": [image], "val": [image], "test": []}, window=64)
        checked = [issue.text for issue in check_band_values(scanned) if "EXIF" in issue.text]
        assert found == checked and len(found) == (orientation in (3, 6))
    assert "a.jpg: has an EXIF orientation" in found[0] and "-auto-orient a.jpg" in found[0]


LIKE: dict[str, tuple[Callable[[NDArray[Any]], NDArray[Any]], str]] = {
    "same": (lambda x: x, "uint16"),
    "as floats": (lambda x: x, "float32"),
    "brighter": (lambda x: 1.6 * x, "uint16"),
    "hazy": (lambda x: x + 800, "uint16"),
    "water": (lambda x: x * np.array([0.6, 0.2, 0.02])[:, None, None], "uint16"),
    "uniform": (lambda x: 0 * x + 1000, "uint16"),
}


@pytest.mark.parametrize("change, dtype", LIKE.values(), ids=LIKE)
def test_similar_scenes_have_no_note(tmp_path: Path, change: Any, dtype: str) -> None:
    assert notes(scene(tmp_path, change(numbers()), dtype)) == []


UNLIKE: dict[str, tuple[Callable[[NDArray[Any]], NDArray[Any]], str, list[str]]] = {
    "reflectance": (lambda x: x / 10_000, "float32", ["10,000 times smaller", "float32"]),
    "percent": (lambda x: x / 100, "float32", ["times smaller"]),
    "16 bits": (lambda x: x * 6, "uint16", ["6 times larger"]),
    "8 bits": (lambda x: (x / 20).clip(0, 255), "uint8", ["20 times smaller", "uint8"]),
    "decibels": (lambda x: 10 * np.log10(x / 1e5), "float32", ["other units"]),
    "one band": (lambda x: x * np.array([1, 1e-4, 1])[:, None, None], "float32", ["band B04"]),
}


@pytest.mark.parametrize("change, dtype, mentions", UNLIKE.values(), ids=UNLIKE)
def test_other_units_are_noted_with_the_factor(
    tmp_path: Path, change: Any, dtype: str, mentions: list[str]
) -> None:
    [note] = notes(scene(tmp_path, change(numbers()), dtype))
    assert all(text in note for text in [*mentions, "scene.tif", "unreliable"]), note


@pytest.mark.parametrize(
    "pixel_m, factor", [(60, "6 times larger"), (2.5, "4 times smaller"), (11, None)]
)
def test_other_pixel_sizes_are_noted_with_the_factor(
    tmp_path: Path, pixel_m: float, factor: str | None
) -> None:
    found = notes(scene(tmp_path, numbers(), "uint16", pixel_m))
    assert [factor in note for note in found] == ([True] if factor else [])


def test_resampling_does_not_hide_a_coarse_image(tmp_path: Path) -> None:
    coarse = scene(tmp_path, numbers(), "uint16", 60, resolution=10.0)
    assert coarse.gsd_m == pytest.approx(10)
    [note] = notes(coarse)
    assert "6 times larger" in note
    fine = scene(tmp_path, numbers(), "uint16", 2, resolution=10.0)
    assert notes(fine) == []


def test_images_without_data_or_georeference_have_no_note(tmp_path: Path) -> None:
    empty = scene(tmp_path, np.zeros((3, 30, 30)), "uint16", nodata=0)
    assert notes(empty) == []
    unknown = TRAINED.model_copy(update={"pixel_m": None})
    assert notes(scene(tmp_path, numbers(), "uint16", 60), unknown) == []


def test_large_scenes_are_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = scene(tmp_path, np.ones((3, 2100, 1500)), "uint16")
    pixels = []
    read = RasterSource.read

    def counted(self: RasterSource, window: Any, *args: Any) -> Any:
        pixels.append(window.height * window.width)
        return read(self, window, *args)

    monkeypatch.setattr(RasterSource, "read", counted)
    assert notes(source) and sum(pixels) == 16 * 256**2


def test_training_images_are_those_of_the_training_split(
    tiny_values: Callable[..., dict[str, Any]], tiny_scenes: Path
) -> None:
    pixels = []
    for name in "ab":
        with rasterio.open(tiny_scenes / "scenes" / f"{name}.tif") as file:
            pixels.append(file.read().reshape(3, -1))
    joined = np.concatenate(pixels, axis=1).astype(np.float64)
    found = training_images(build_data(parse_recipe(tiny_values())))
    np.testing.assert_allclose(found.mean, joined.mean(1), rtol=1e-6)
    np.testing.assert_allclose(found.std, joined.std(1), rtol=1e-4)
    assert found.dtypes == ["float32"] and found.pixel_m == pytest.approx((10, 10))
    scaled = tiny_values({"data.augment": {"scale": [0.5, 2.0]}})
    assert training_images(build_data(parse_recipe(scaled))).pixel_m == pytest.approx((5, 20))


@pytest.mark.parametrize("count", [1, 3])
def test_another_scaling_is_noted(tmp_path: Path, count: int) -> None:
    """As of Sentinel-2 products since 2022, whose values are 1000 larger."""
    source = scene(tmp_path, numbers(), "uint16")
    with rasterio.open(source.path, "r+") as file:
        file.scales, file.offsets = [1e-4] * 3, [-0.1] * count + [0.0] * (3 - count)
    source = open_raster(source.path, bands=BANDS)
    for known in ([(1.0, 0.0)], [(1e-4, 0.0)]):
        [note] = notes(source, TRAINED.model_copy(update={"scalings": known}))
        assert (
            "scale 0.0001 and offset -0.1" in note and f"scale {known[0][0]:g} and offset 0" in note
        )
    like = TRAINED.model_copy(update={"scalings": [(1e-4, -0.1), (1e-4, 0.0)]})
    assert not notes(source, like) and not notes(source)
