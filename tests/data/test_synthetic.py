"""Synthetic scenes: deterministic, plausible, georeferenced, never overwriting files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from geotune.data.synthetic import synthetic_scenes as synthetic
from geotune.data.synthetic.land_cover import (
    BANDS,
    CLOUD,
    MATERIALS,
    WAVELENGTH_UM,
    blur,
    gaussian_field,
    hashed_uniform,
    material_spectra,
)
from geotune.data.synthetic.synthetic_scenes import (
    CLASSES,
    DEFAULT_BANDS,
    MANIFEST,
    SyntheticScene,
    labels_path,
    make_scene,
    write_synthetic_scenes,
)
from geotune.types import IGNORE
from helpers.errors import raises

SMALL = 96


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Default scenes of 256 pixels."""
    folder = tmp_path_factory.mktemp("scenes")
    write_synthetic_scenes(folder, size=256)
    return folder


@pytest.fixture(scope="module")
def scenes() -> list[SyntheticScene]:
    """The scenes of `folder` as arrays."""
    return [make_scene(index, 256, 0, DEFAULT_BANDS) for index in range(4)]


def normalised_difference(scene: SyntheticScene, first: str, second: str, name: str) -> float:
    """Mean normalised difference of two bands over a class."""
    mask = scene.labels == CLASSES.index(name)
    a, b = (scene.image[DEFAULT_BANDS.index(band)][mask] / 1e4 for band in (first, second))
    return float(np.mean((a - b) / (a + b)))


def reflectance(scene: SyntheticScene, band: str, name: str) -> float:
    """Mean reflectance of a class in a band."""
    mask = scene.labels == CLASSES.index(name)
    return float(scene.image[DEFAULT_BANDS.index(band)][mask].mean() / 1e4)


# ---------------------------------------------------------------- deterministic
def test_same_seed_gives_identical_files(tmp_path: Path) -> None:
    one = write_synthetic_scenes(tmp_path / "one", count=2, size=SMALL, seed=3)
    two = write_synthetic_scenes(tmp_path / "two", count=2, size=SMALL, seed=3)
    for a, b in zip(one, two, strict=True):
        assert a.read_bytes() == b.read_bytes()
        assert labels_path(a).read_bytes() == labels_path(b).read_bytes()


def test_scenes_depend_on_seed_and_index_but_not_on_count(tmp_path: Path) -> None:
    one = write_synthetic_scenes(tmp_path / "one", count=1, size=SMALL, seed=3)
    two = write_synthetic_scenes(tmp_path / "two", count=2, size=SMALL, seed=3)
    other = write_synthetic_scenes(tmp_path / "other", count=1, size=SMALL, seed=4)
    assert one[0].read_bytes() == two[0].read_bytes()
    for unlike in (two[1], other[0]):
        assert (read(labels_path(one[0])) != read(labels_path(unlike))).mean() > 0.3


def test_bands_are_independent_of_each_other() -> None:
    every = make_scene(1, SMALL, 0, BANDS)
    for band in BANDS:
        alone = make_scene(1, SMALL, 0, [band])
        assert np.array_equal(alone.image[0], every.image[BANDS.index(band)])
        assert np.array_equal(alone.labels, every.labels)


def test_sensor_noise_is_uncorrelated_between_bands() -> None:
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
def test_classes_have_plausible_spectra(scenes: list[SyntheticScene], index: int) -> None:
    scene = scenes[index]
    ndvi = [
        normalised_difference(scene, "B08", "B04", name)
        for name in ("vegetation", "fields", "built-up", "cloud", "water")
    ]
    assert ndvi == sorted(ndvi, reverse=True)
    assert ndvi[0] > 0.6 > ndvi[1] > 0.3 > ndvi[2]
    ndwi = {
        name: normalised_difference(scene, "B03", "B08", name)
        for name in ("water", "vegetation", "fields", "built-up")
    }
    assert ndwi.pop("water") > 0 > max(ndwi.values())
    for band in DEFAULT_BANDS:
        cloud = reflectance(scene, band, "cloud")
        assert cloud > 1.15 * max(reflectance(scene, band, n) for n in ("built-up", "fields"))
    for band in ("B08", "B11", "B12"):
        assert reflectance(scene, band, "water") < 0.06
        assert reflectance(scene, band, "shadow") < 0.6 * reflectance(scene, band, "fields")
    # shadows are lit by the sky, so they are bluer than their surroundings
    blue = normalised_difference(scene, "B02", "B08", "shadow")
    assert blue > max(
        normalised_difference(scene, "B02", "B08", n) for n in ("fields", "vegetation")
    )


@pytest.mark.parametrize("size", [64, 256])
def test_every_scene_contains_every_class(size: int) -> None:
    for index in range(8):
        labels = make_scene(index, size, index // 4, ["B04"]).labels
        assert set(np.unique(labels)) - {IGNORE} == set(range(len(CLASSES)))


def test_no_class_is_rare_or_dominant(scenes: list[SyntheticScene]) -> None:
    for scene in scenes:
        fractions = np.bincount(scene.labels[scene.labels != IGNORE], minlength=len(CLASSES))
        assert fractions.min() / fractions.sum() > 0.03 and fractions.max() / fractions.sum() < 0.6


def test_reflectance_varies_within_and_between_scenes(scenes: list[SyntheticScene]) -> None:
    for name in CLASSES:
        c = CLASSES.index(name)
        spread = [float(np.std(s.image[3][s.labels == c] / 1e4)) for s in scenes]
        assert min(spread) > 0.003, name
        means = [reflectance(s, "B08", name) for s in scenes]
        assert np.std(means) / np.mean(means) > 0.01, name


def test_spectra_alone_classify_only_partly(scenes: list[SyntheticScene]) -> None:
    """A Gaussian classifier fitted to three scenes is neither useless nor perfect on the fourth."""

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


def test_shadows_lie_north_west_of_clouds() -> None:
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


def test_material_spectra_are_valid_reflectances() -> None:
    table = material_spectra(greenness=1)
    assert table.shape == (len(MATERIALS), len(BANDS)) and CLOUD.shape == (len(BANDS),)
    assert len(WAVELENGTH_UM) == len(BANDS) and list(WAVELENGTH_UM) == sorted(WAVELENGTH_UM)
    for greenness in (0.8, 1.05):
        assert material_spectra(greenness).min() > 0 and material_spectra(greenness).max() < 0.6
    red, nir = BANDS.index("B04"), BANDS.index("B08")
    leaf, faded = (material_spectra(g)[MATERIALS["broadleaf"]] for g in (1.0, 0.8))
    assert leaf[nir] / leaf[red] > 10
    assert faded[red] > leaf[red] and faded[nir] < leaf[nir]


# ---------------------------------------------------------------- georeferenced files
def test_files_are_georeferenced_tagged_and_tiled(folder: Path) -> None:
    footprints = set()
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
            footprints.add((*image.bounds, zone))
            for raster in (image, labels):
                assert set(raster.block_shapes) == {(256, 256)}
                assert raster.compression.name == "deflate"
                assert raster.tags()["synthetic"].startswith("geotune synthetic")
                assert "not an observation" in raster.tags()["synthetic"]
            assert labels.tags()["classes"].split(",") == list(CLASSES)
    assert len(footprints) == 4


def test_nodata_of_image_and_labels_agree(folder: Path) -> None:
    fractions = []
    for index in range(4):
        path = folder / f"scene_{index:03d}.tif"
        image, labels = read(path), read(labels_path(path))[0]
        assert np.array_equal((image == 0).all(0), labels == IGNORE)
        assert np.array_equal((image == 0).any(0), labels == IGNORE)
        fractions.append(float(np.mean(labels == IGNORE)))
    assert fractions[0] == fractions[2] == 0
    assert 0.005 < fractions[1] < 0.25 and 0.005 < fractions[3] < 0.25


def test_bands_and_size_are_configurable(tmp_path: Path) -> None:
    path = write_synthetic_scenes(tmp_path, count=1, size=77, bands=["B8A", "B03"])[0]
    with rasterio.open(path) as image:
        assert image.descriptions == ("B8A", "B03") and image.shape == (77, 77)


# ---------------------------------------------------------------- the folder
def test_existing_scenes_are_reused(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    paths = write_synthetic_scenes(folder, size=256)
    assert paths == [folder / f"scene_{index:03d}.tif" for index in range(4)]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    assert len(before) == 9  # images, labels, manifest: no temporary file is left


def test_interrupted_folder_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_synthetic_scenes(tmp_path / "whole", count=2, size=SMALL)
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
            write_synthetic_scenes(broken, count=2, size=SMALL)
    assert len(list(broken.glob("*.tif"))) == 2
    labels_path(broken / "scene_000.tif").unlink()
    write_synthetic_scenes(broken, count=2, size=SMALL)
    for path in (tmp_path / "whole").iterdir():
        assert (broken / path.name).read_bytes() == path.read_bytes()


def test_failed_write_leaves_no_scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic, "LABEL_COLOURS", {0: "no colour"})
    with pytest.raises((ValueError, TypeError)):
        write_synthetic_scenes(tmp_path, count=1, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("changed", "mentions"),
    [
        ({"count": 3}, ["count", 2, 3]),
        ({"size": 128}, ["size", 96, 128]),
        ({"seed": 9}, ["seed", 0, 9]),
        ({"bands": ("B04",)}, ["bands", "'B12']", "['B04']"]),
    ],
)
def test_existing_scenes_with_other_parameters_are_rejected(
    tmp_path: Path, changed: dict[str, object], mentions: list[object]
) -> None:
    write_synthetic_scenes(tmp_path, count=2, size=SMALL)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with raises("synthetic-folder", file=tmp_path, mentions=[tmp_path, *mentions]) as error:
        write_synthetic_scenes(tmp_path, **({"count": 2, "size": SMALL} | changed))  # type: ignore[arg-type]
    assert str(error.value).count(" instead of ") == 1
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_foreign_scenes_are_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "scene_000.tif").write_bytes(b"precious")
    with raises("synthetic-folder", file=tmp_path, mentions=["scene_000.tif", MANIFEST]):
        write_synthetic_scenes(tmp_path, count=1, size=SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["scene_000.tif"]


@pytest.mark.parametrize("text", ["{", "[]", '"text"'])
def test_invalid_manifest_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with raises("synthetic-folder", file=tmp_path / MANIFEST):
        write_synthetic_scenes(tmp_path, count=1, size=SMALL)


def test_file_instead_of_folder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with raises("synthetic-folder", file=tmp_path / "file"):
        write_synthetic_scenes(tmp_path / "file", count=1, size=SMALL)


def test_manifest_records_the_parameters(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    assert manifest.pop("generator").startswith("geotune synthetic")
    assert manifest == {"count": 4, "size": 256, "seed": 0, "bands": list(DEFAULT_BANDS)}


@pytest.mark.parametrize(
    ("invalid", "mentions"),
    [
        ({"count": 0}, ["count", 0, 1]),
        ({"size": 63}, ["size", 63, 64]),
        ({"seed": -1}, ["seed", -1, 0]),
        ({"bands": ("B02", "B99")}, ["B99", "B01"]),
        ({"bands": ()}, ["no band"]),
        ({"bands": ("B02", "B02")}, ["B02, B02"]),
    ],
)
def test_invalid_parameters_write_nothing(
    tmp_path: Path, invalid: dict[str, object], mentions: list[object]
) -> None:
    with raises("synthetic-options", mentions=mentions):
        write_synthetic_scenes(tmp_path / "new", **invalid)  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()


# ---------------------------------------------------------------- random fields
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    side=st.integers(16, 80),
    scale=st.floats(2, 60),
    sigma=st.floats(0.4, 3),
)
def test_random_fields_are_standardised_and_blur_preserves_the_mean(
    seed: int, side: int, scale: float, sigma: float
) -> None:
    field = gaussian_field(np.random.default_rng(seed), side, scale)
    assert field.shape == (side, side) and field.dtype == np.float32
    assert abs(field.mean()) < 1e-3 and abs(field.std() - 1) < 1e-3
    soft = blur(field + 1, sigma)
    assert soft.dtype == np.float32 and abs(soft.mean() - 1) < 1e-3
    assert soft.std() < field.std()


def test_blur_is_gaussian() -> None:
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    soft = blur(point, 1.5)
    rows = np.arange(41) - 20
    assert abs(float((soft.sum(1) * rows**2).sum()) - 1.5**2) < 0.08
    assert np.allclose(soft, soft.T) and np.allclose(soft, soft[::-1])


@given(salt=st.integers(0, 2**31), key=st.integers(-(2**40), 2**40))
def test_hashed_uniform_is_uniform_and_deterministic(salt: int, key: int) -> None:
    keys = np.arange(key, key + 4000)
    values = hashed_uniform(salt, keys, keys[::-1])
    assert values.min() >= 0 and values.max() < 1
    assert abs(values.mean() - 0.5) < 0.03 and abs(values.std() - 12**-0.5) < 0.02
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.08
    assert np.array_equal(values[:10], hashed_uniform(salt, keys[:10], keys[::-1][:10]))
