"""Synthetic scenes: repeatable, plausible, georeferenced, and never overwriting anything."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geotune.data.synthetic import writer as synthetic
from geotune.data.synthetic.noise import blur, noise, scatter
from geotune.data.synthetic.spectra import BANDS, CLOUD, MATERIALS, WAVELENGTH_UM, spectra
from geotune.data.synthetic.synthetic_scene import SyntheticScene, make_scene
from geotune.data.synthetic.writer import (
    CLASSES,
    DEFAULT_BANDS,
    MANIFEST,
    labels_path,
    write_scenes,
)
from geotune.errors import GeotuneError
from geotune.types import IGNORE

SMALL = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A default set, but for its size."""
    folder = tmp_path_factory.mktemp("scenes")
    write_scenes(folder, size=256)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[SyntheticScene]:
    """The scenes of that set as arrays."""
    return [make_scene(index, 256, 0, DEFAULT_BANDS) for index in range(4)]


def index_of(scene: SyntheticScene, first: str, second: str, name: str) -> float:
    """Mean normalised difference of two bands over a class."""
    where = scene.labels == CLASSES.index(name)
    a, b = (scene.image[DEFAULT_BANDS.index(band)][where] / 1e4 for band in (first, second))
    return float(np.mean((a - b) / (a + b)))


def reflectance(scene: SyntheticScene, band: str, name: str) -> float:
    """Mean reflectance of a class in a band."""
    where = scene.labels == CLASSES.index(name)
    return float(scene.image[DEFAULT_BANDS.index(band)][where].mean() / 1e4)


# ---------------------------------------------------------------- repeatable
def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    one = write_scenes(tmp_path / "one", count=2, size=SMALL, seed=3)
    two = write_scenes(tmp_path / "two", count=2, size=SMALL, seed=3)
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert labels_path(a).read_bytes() == labels_path(b).read_bytes()


def test_scenes_differ_by_seed_and_by_number_but_not_by_count(tmp_path: Path) -> None:
    one = write_scenes(tmp_path / "one", count=1, size=SMALL, seed=3)
    two = write_scenes(tmp_path / "two", count=2, size=SMALL, seed=3)
    other = write_scenes(tmp_path / "other", count=1, size=SMALL, seed=4)
    assert one[0].read_bytes() == two[0].read_bytes()
    for unlike in (two[1], other[0]):
        assert (read(labels_path(one[0])) != read(labels_path(unlike))).mean() > 0.3


def test_a_band_does_not_depend_on_the_others() -> None:
    every = make_scene(1, SMALL, 0, BANDS)
    for band in BANDS:
        alone = make_scene(1, SMALL, 0, [band])
        assert np.array_equal(alone.image[0], every.image[BANDS.index(band)])
        assert np.array_equal(alone.labels, every.labels)


def test_every_band_has_its_own_grain() -> None:
    scene = make_scene(2, 256, 0, BANDS)
    image = scene.image.astype(np.float32)
    water = (scene.labels == CLASSES.index("water")).astype(np.float32)
    calm = blur(water, 2.0) > 0.999  # away from shores and clouds
    assert calm.sum() > 500
    grain = np.corrcoef((image - blur(image, 1.0))[:, calm])
    assert np.abs(grain - np.eye(len(BANDS))).max() < 0.3


def read(path: Path) -> NDArray[np.generic]:
    with rasterio.open(path) as raster:
        pixels: NDArray[np.generic] = raster.read()
    return pixels


# ---------------------------------------------------------------- plausible
@pytest.mark.parametrize("index", range(4))
def test_every_class_has_its_spectrum(scenes: list[SyntheticScene], index: int) -> None:
    scene = scenes[index]
    ndvi = [
        index_of(scene, "B08", "B04", name)
        for name in ("vegetation", "fields", "built-up", "cloud", "water")
    ]
    assert ndvi == sorted(ndvi, reverse=True)
    assert ndvi[0] > 0.6 > ndvi[1] > 0.3 > ndvi[2]
    ndwi = {
        name: index_of(scene, "B03", "B08", name)
        for name in ("water", "vegetation", "fields", "built-up")
    }
    assert ndwi.pop("water") > 0 > max(ndwi.values())
    for band in DEFAULT_BANDS:
        cloud = reflectance(scene, band, "cloud")
        assert cloud > 1.15 * max(reflectance(scene, band, n) for n in ("built-up", "fields"))
    for band in ("B08", "B11", "B12"):
        assert reflectance(scene, band, "water") < 0.06
        assert reflectance(scene, band, "shadow") < 0.6 * reflectance(scene, band, "fields")
    # the sky lights shadows: they are bluer than what they fall on
    blue = index_of(scene, "B02", "B08", "shadow")
    assert blue > max(index_of(scene, "B02", "B08", n) for n in ("fields", "vegetation"))


@pytest.mark.parametrize("size", [64, 256])
def test_every_class_occurs_in_every_scene(size: int) -> None:
    for index in range(8):
        labels = make_scene(index, size, index // 4, ["B04"]).labels
        assert set(np.unique(labels)) - {IGNORE} == set(range(len(CLASSES)))


def test_no_class_is_a_trifle(scenes: list[SyntheticScene]) -> None:
    for scene in scenes:
        shares = np.bincount(scene.labels[scene.labels != IGNORE], minlength=len(CLASSES))
        assert shares.min() / shares.sum() > 0.03 and shares.max() / shares.sum() < 0.6


def test_classes_vary_within_and_between_scenes(scenes: list[SyntheticScene]) -> None:
    for name in CLASSES:
        c = CLASSES.index(name)
        spread = [float(np.std(s.image[3][s.labels == c] / 1e4)) for s in scenes]
        assert min(spread) > 0.003, name
        means = [reflectance(s, "B08", name) for s in scenes]
        assert np.std(means) / np.mean(means) > 0.01, name


def test_pixels_alone_do_not_tell_everything(scenes: list[SyntheticScene]) -> None:
    """A Gaussian a class, of three scenes, is neither useless nor perfect on the fourth."""

    def pixels(scene: SyntheticScene) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        valid = scene.labels != IGNORE
        return np.log(scene.image[:, valid].T.astype(float)), scene.labels[valid]

    x, y = (np.concatenate(part) for part in zip(*map(pixels, scenes[:3]), strict=True))
    held_out, truth = pixels(scenes[3])
    likelihood = []
    for c in range(len(CLASSES)):
        members = x[y == c]
        covariance = np.cov(members.T)
        away = held_out - members.mean(0)
        distance = np.sum(away @ np.linalg.inv(covariance) * away, axis=1)
        prior = 2 * np.log(np.mean(y == c))
        likelihood.append(prior - distance - np.linalg.slogdet(covariance)[1])
    accuracy = float(np.mean(np.argmax(likelihood, axis=0) == truth))
    assert 0.6 < accuracy < 0.95


def test_shadows_lie_north_west_of_their_clouds() -> None:
    cloud_class, shadow_class = CLASSES.index("cloud"), CLASSES.index("shadow")
    for index in range(4):
        labels = make_scene(index, 256, 1, ["B04"]).labels
        cloud, shadow = labels == cloud_class, labels == shadow_class

        def overlap(down: int, right: int, cloud: NDArray[np.bool_] = cloud) -> float:
            moved = np.roll(cloud, (down, right), (0, 1))
            return float((moved & shadow).sum() / shadow.sum())  # noqa: B023 (used at once)

        best = max((overlap(r, c), r, c) for r in range(-44, 45, 4) for c in range(-44, 45, 4))
        assert best[0] > 0.5
        assert best[1] < 0 and best[2] < 0


def test_spectra_are_reflectances_of_every_material() -> None:
    table = spectra(greenness=1)
    assert table.shape == (len(MATERIALS), len(BANDS)) and CLOUD.shape == (len(BANDS),)
    assert len(WAVELENGTH_UM) == len(BANDS) and list(WAVELENGTH_UM) == sorted(WAVELENGTH_UM)
    for greenness in (0.8, 1.05):
        assert spectra(greenness).min() > 0 and spectra(greenness).max() < 0.6
    red, nir = BANDS.index("B04"), BANDS.index("B08")
    leaf, faded = (spectra(g)[MATERIALS["broadleaf"]] for g in (1.0, 0.8))
    assert leaf[nir] / leaf[red] > 10
    assert faded[red] > leaf[red] and faded[nir] < leaf[nir]


# ---------------------------------------------------------------- georeferenced files
def test_files_are_georeferenced_tagged_and_tiled(folder: Path) -> None:
    places = set()
    for index in range(4):
        path = folder / f"scene_{index:03d}.tif"
        with rasterio.open(path) as image, rasterio.open(labels_path(path)) as labels:
            assert image.descriptions == DEFAULT_BANDS
            assert (image.dtypes[0], image.nodata, image.count) == ("uint16", 0, 6)
            assert (labels.dtypes[0], labels.nodata, labels.count) == ("uint8", IGNORE, 1)
            assert image.shape == labels.shape == (256, 256)
            assert image.crs == labels.crs and image.transform == labels.transform
            assert 32601 <= image.crs.to_epsg() <= 32660 and image.res == (10, 10)
            longitude, latitude = image.lnglat()
            zone = image.crs.to_epsg() - 32600
            assert abs(longitude - (zone * 6 - 183)) < 3.5 and 35 < latitude < 60
            places.add((*image.bounds, zone))
            for raster in (image, labels):
                assert set(raster.block_shapes) == {(256, 256)}
                assert raster.compression.name == "deflate"
                assert raster.tags()["synthetic"].startswith("geotune synthetic")
                assert "not an observation" in raster.tags()["synthetic"]
            assert labels.tags()["classes"].split(",") == list(CLASSES)
    assert len(places) == 4


def test_no_data_is_where_the_labels_say_so(folder: Path) -> None:
    shares = []
    for index in range(4):
        path = folder / f"scene_{index:03d}.tif"
        image, labels = read(path), read(labels_path(path))[0]
        assert np.array_equal((image == 0).all(0), labels == IGNORE)
        assert np.array_equal((image == 0).any(0), labels == IGNORE)
        shares.append(float(np.mean(labels == IGNORE)))
    assert shares[0] == shares[2] == 0
    assert 0.005 < shares[1] < 0.25 and 0.005 < shares[3] < 0.25


def test_any_band_and_size(tmp_path: Path) -> None:
    path = write_scenes(tmp_path, count=1, size=77, bands=["B8A", "B03"])[0]
    with rasterio.open(path) as image:
        assert image.descriptions == ("B8A", "B03") and image.shape == (77, 77)


# ---------------------------------------------------------------- the folder
def test_a_folder_is_used_again(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    paths = write_scenes(folder, size=256)
    assert paths == [folder / f"scene_{index:03d}.tif" for index in range(4)]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(before) == 9  # images, labels, manifest: no temporary file is left


def test_a_folder_left_half_way_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(tmp_path / "whole", count=2, size=SMALL)
    calls = []

    def interrupted(*args: object) -> SyntheticScene:
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return make_scene(*args)  # type: ignore[arg-type]

    broken = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "make_scene", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_scenes(broken, count=2, size=SMALL)
    assert len(list(broken.glob("*.tif"))) == 2
    labels_path(broken / "scene_000.tif").unlink()
    write_scenes(broken, count=2, size=SMALL)
    for path in (tmp_path / "whole").iterdir():
        assert (broken / path.name).read_bytes() == path.read_bytes()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "_COLOURS", {0: "no colour"})
    with pytest.raises((ValueError, TypeError)):
        write_scenes(tmp_path, count=1, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"count": 3}, "count is 2 there and 3 here"),
        ({"size": 128}, "size is 96 there and 128 here"),
        ({"seed": 9}, "seed is 0 there and 9 here"),
        ({"bands": ("B04",)}, r"bands is .*'B12'\] there and \['B04'\] here"),
    ],
)
def test_other_parameters_are_refused(
    tmp_path: Path, changed: dict[str, object], message: str
) -> None:
    write_scenes(tmp_path, count=2, size=SMALL)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(GeotuneError, match=message) as error:
        write_scenes(tmp_path, **({"count": 2, "size": SMALL} | changed))  # type: ignore[arg-type]
    assert str(tmp_path) in str(error.value) and str(error.value).count(" there ") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_scenes_of_somebody_else_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scene_000.tif").write_bytes(b"precious")
    with pytest.raises(GeotuneError, match=r"scene_000\.tif but no synthetic\.json"):
        write_scenes(tmp_path, count=1, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["scene_000.tif"]


@pytest.mark.parametrize("text", ["{", "[]", '"text"'])
def test_a_broken_manifest_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(GeotuneError, match=r"synthetic\.json: cannot be read"):
        write_scenes(tmp_path, count=1, size=SMALL)


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(GeotuneError, match="file: cannot be made a folder"):
        write_scenes(tmp_path / "file", count=1, size=SMALL)


def test_the_manifest_says_what_was_made(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest.pop("generator").startswith("geotune synthetic")
    assert manifest == {"count": 4, "size": 256, "seed": 0, "bands": list(DEFAULT_BANDS)}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"count": 0}, "count is 0; give at least 1"),
        ({"size": 63}, "size is 63; give at least 64"),
        ({"seed": -1}, "seed is -1; give at least 0"),
        ({"bands": ("B02", "B99")}, "bands has B99; give some of B01"),
        ({"bands": ()}, "bands has no band"),
        ({"bands": ("B02", "B02")}, "twice"),
    ],
)
def test_wrong_parameters_write_nothing(
    tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(GeotuneError, match=message):
        write_scenes(tmp_path / "new", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- random fields
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    side=st.integers(16, 80),
    scale=st.floats(2, 60),
    sigma=st.floats(0.4, 3),
)
def test_noise_is_standard_and_blur_keeps_the_mean(
    seed: int, side: int, scale: float, sigma: float
) -> None:
    field = noise(np.random.default_rng(seed), side, scale)
    assert field.shape == (side, side) and field.dtype == np.float32
    assert abs(field.mean()) < 1e-3 and abs(field.std() - 1) < 1e-3
    soft = blur(field + 1, sigma)
    assert soft.dtype == np.float32 and abs(soft.mean() - 1) < 1e-3
    assert soft.std() < field.std()


def test_blur_is_a_gaussian() -> None:
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    soft = blur(point, 1.5)
    rows = np.arange(41) - 20
    assert abs(float((soft.sum(1) * rows**2).sum()) - 1.5**2) < 0.08
    assert np.allclose(soft, soft.T) and np.allclose(soft, soft[::-1])


@given(salt=st.integers(0, 2**31), key=st.integers(-(2**40), 2**40))
def test_scatter_tells_keys_apart(salt: int, key: int) -> None:
    keys = np.arange(key, key + 4000)
    values = scatter(salt, keys, keys[::-1])
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.03 and abs(values.std() - 12**-0.5) < 0.02
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.08
    assert np.array_equal(values[:10], scatter(salt, keys[:10], keys[::-1][:10]))
