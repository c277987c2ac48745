from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.checks import accumulators
from geotune.data.checks import scan as scan_module
from geotune.data.checks.accumulators import PositionReservoir, windows_with_labels
from geotune.data.checks.scan import band_statistics, scan_scenes
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.scene import Scene
from helpers.errors import raises

CLASSES = ["water", "wood", "field"]


@pytest.fixture
def make_scene(write_raster: Any, tmp_path: Path) -> Any:
    def make(image: Any, mask: Any, name: str = "a", **options: Any) -> Scene:
        write_raster(f"{name}.tif", image, **options)
        write_raster(f"l/{name}.tif", mask)
        [scene] = open_scenes(
            partial(open_labels, classes=CLASSES),
            scenes=f"{tmp_path}/{name}.tif",
            labels=f"{tmp_path}/l/{{stem}}.tif",
        )
        return scene

    return make


@pytest.fixture(params=[7, 512])
def block(request: Any, monkeypatch: Any) -> int:
    """A block size smaller than the scene, and one larger."""
    monkeypatch.setattr(scan_module, "BLOCK", request.param)
    return int(request.param)


def test_a_scan_has_the_statistics_classes_and_positions_of_all_pixels(
    make_scene: Any, block: int
) -> None:
    rng = np.random.default_rng(0)
    # large values that differ little: a sum of squares in float32 would lose the variance
    image = (rng.normal(0, 1, (2, 40, 33)) + np.array([1e5, -3])[:, None, None]).astype("float32")
    image[:, 5:9, 3] = -1
    image[1, 20, 20] = -1
    mask = rng.choice([0, 2, 255], (40, 33)).astype("uint8")
    scene = make_scene(image, mask, nodata=-1)
    [result] = scan_scenes([scene], 10)
    valid = image != -1
    assert result.pixels == 40 * 33 - 4
    labels = np.where(valid.any(axis=0), mask, 255)
    assert result.class_counts.tolist() == [(labels == i).sum() for i in range(3)]
    statistics = band_statistics([scene], [result])
    for i in range(2):
        values = image[i][valid[i]].astype(np.float64)
        assert statistics.mean[i] == pytest.approx(values.mean(), rel=1e-12)
        assert statistics.std[i] == pytest.approx(values.std(), rel=1e-9)
    assert statistics.pixels == result.pixels
    for i in (0, 2):
        positions = {tuple(position) for position in result.positions[i]}
        assert positions == {tuple(position) for position in np.argwhere(labels == i)}


def test_band_statistics_cover_the_pixels_of_all_scenes(make_scene: Any) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 99, (2, 9, 9 + i)).astype("uint16") for i in range(3)]
    scenes = [
        make_scene(image, np.zeros(image.shape[1:], "uint8"), name=f"s{i}")
        for i, image in enumerate(images)
    ]
    statistics = band_statistics(scenes, scan_scenes(scenes, 4))
    pixels = np.concatenate([image.reshape(2, -1) for image in images], axis=1)
    assert statistics.mean == pytest.approx(pixels.mean(axis=1))
    assert statistics.std == pytest.approx(pixels.std(axis=1))


def test_scans_do_not_depend_on_the_number_of_threads(make_scene: Any) -> None:
    rng = np.random.default_rng(0)
    scenes = [
        make_scene(
            rng.integers(1, 99, (1, 70, 70)).astype("uint8"),
            rng.integers(0, 2, (70, 70)).astype("uint8"),
            name=f"s{i}",
        )
        for i in range(4)
    ]
    single, threaded = (scan_scenes(scenes, 16, threads=threads) for threads in (1, 4))
    for a, b in zip(single, threaded, strict=True):
        assert (a.class_counts == b.class_counts).all()
        assert a.labelled_windows == b.labelled_windows
        assert (a.means == b.means).all() and (a.sq_deviations == b.sq_deviations).all()
        for positions, others in zip(a.positions, b.positions, strict=True):
            assert np.array_equal(positions, others)


def test_every_position_is_equally_likely_in_the_reservoir(monkeypatch: Any) -> None:
    monkeypatch.setattr(accumulators, "MAX_POSITIONS", 20)
    rng = np.random.default_rng(0)
    hits = np.zeros(60)
    for _ in range(2000):
        reservoir = PositionReservoir(rng)
        for row, width in ((0, 10), (1, 35), (2, 15)):
            reservoir.add(np.arange(width), Window(row, 0, 1, width))
        assert reservoir.num_seen == 60 and len(reservoir.positions) == 20
        rows, cols = reservoir.positions.T
        flat = np.array([0, 10, 45])[rows] + cols
        assert len(set(flat.tolist())) == 20
        hits[flat] += 1
    # each of 60 is sampled in a third of 2000 draws: five standard deviations around 667
    assert abs(hits - 2000 / 3).max() < 5 * np.sqrt(2000 * 2 / 9)


@given(st.data(), st.integers(1, 9))
def test_windows_with_labels_follow_the_grid_of_the_scene(data: Any, window: int) -> None:
    row, col = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    seed = data.draw(st.integers(0, 99))
    mask = np.random.default_rng(seed).random((height, width)) < 0.1
    expected = {
        ((row + r) // window * window, (col + c) // window * window) for r, c in np.argwhere(mask)
    }
    assert windows_with_labels(mask, Window(row, col, height, width), window) == expected


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_invalid_pixels_are_counted_with_band_and_position(
    make_scene: Any, block: int, value: float
) -> None:
    image = np.ones((2, 30, 30), dtype="float32")
    image[1, 20, 3] = image[1, 4, 25] = value
    for options, nodata in (
        ({}, "set data.nodata: .nan"),
        ({"nodata": -9}, "nodata is -9), first"),  # data.nodata would have no effect
    ):
        scene = make_scene(image, np.zeros((30, 30), "uint8"), bands=["red", "nir"], **options)
        mentions = ["a.tif", "band nir", 2, nodata, "row 4, column 25"]
        with raises("pixels-invalid", key="data.nodata", mentions=mentions):
            scan_scenes([scene], 16)


def test_nan_is_allowed_as_nodata(make_scene: Any) -> None:
    image = np.ones((1, 8, 8), dtype="float32")
    image[0, 2, 2] = np.nan
    [result] = scan_scenes([make_scene(image, np.zeros((8, 8), "uint8"), nodata=np.nan)], 4)
    assert result.pixels == 63


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_truncated_raster_is_rejected(make_scene: Any, tmp_path: Path, compress: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, 200, 200)).astype("uint8")
    scene = make_scene(image, np.zeros((200, 200), "uint8"), compress=compress)
    path = tmp_path / "a.tif"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with raises("file-unreadable", file=path):
        scan_scenes([scene], 64)


def test_unknown_class_values_are_counted_in_the_whole_file(make_scene: Any, block: int) -> None:
    mask = np.zeros((30, 30), "uint8")
    mask[0, 0], mask[25:, 25] = 7, 9
    scene = make_scene(np.ones((1, 30, 30), "uint8"), mask)
    counts = ["7 (1 pixels), 9 (5 pixels)"]
    with raises("class-unknown", file=scene.labels.path, mentions=counts):
        scan_scenes([scene], 16)


def test_a_band_without_data_is_rejected(make_scene: Any) -> None:
    image = np.ones((2, 8, 8), "uint8")
    image[1] = 0
    scene = make_scene(image, np.zeros((8, 8), "uint8"), bands=["red", "nir"], nodata=0)
    with raises("band-empty", mentions=["nir"]):
        band_statistics([scene], scan_scenes([scene], 4))
