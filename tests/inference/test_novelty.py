"""Distances from training features, their calibration, and their map."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import torch

from geotune.data.raster.windows import Window
from geotune.inference.blend import window_weights
from geotune.inference.detection_writers import DetectionWriter
from geotune.inference.novelty import NoveltyReference, window_features
from geotune.inference.novelty_map import NoveltyTracker
from geotune.types import FeatureMaps
from helpers.errors import raises
from helpers.inference_scenes import write_scene


def features(count: int, width: int = 12, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.linspace(3, 0.1, width)
    mixed = torch.randn(width, width, generator=torch.Generator().manual_seed(9))
    return torch.randn(count, width, generator=generator) * spread @ mixed + 5


@pytest.fixture(scope="module")
def reference() -> NoveltyReference:
    found = NoveltyReference.fit(features(200), features(100, seed=1))
    assert found is not None
    return found


def test_the_distance_is_that_of_mahalanobis_under_probabilistic_pca() -> None:
    found = NoveltyReference.fit(features(30), features(20, seed=1))
    assert found is not None and found.components.shape == (7, 12)
    axes = found.components.double()
    outside = torch.eye(12, dtype=torch.float64) - axes.T @ axes
    covariance = axes.T @ torch.diag(found.variances.double()) @ axes + found.residual * outside
    z = (features(5, seed=2).double() - found.mean) / found.scale
    expected = (z @ torch.linalg.inv(covariance) * z).sum(1).sqrt()
    np.testing.assert_allclose(found.distances(features(5, seed=2)), expected, rtol=1e-4)


def test_validation_windows_are_spread_evenly_and_far_ones_at_the_end(
    reference: NoveltyReference,
) -> None:
    same = reference.percentile(reference.distances(features(500, seed=3)).numpy())
    assert abs(float(np.mean(same)) - 0.5) < 0.08
    far = reference.distances(features(50, seed=3) + 100)
    assert (reference.percentile(far.numpy()) == 1).all()
    assert (far > 2 * reference.farthest).all()


def test_a_file_holds_all_of_it_and_stays_small(tmp_path: Path) -> None:
    wide = NoveltyReference.fit(features(256, 3072), features(256, 3072, seed=1))
    assert wide is not None
    wide.save(tmp_path / "novelty.safetensors")
    assert (tmp_path / "novelty.safetensors").stat().st_size < 200_000
    read = NoveltyReference.load(tmp_path / "novelty.safetensors")
    assert read.windows == (256, 256)
    assert torch.equal(
        read.distances(features(3, 3072, seed=5)), wide.distances(features(3, 3072, seed=5))
    )
    (tmp_path / "novelty.safetensors").write_bytes(b"no tensors")
    with raises("adapter-invalid", file=tmp_path / "novelty.safetensors"):
        NoveltyReference.load(tmp_path / "novelty.safetensors")


def test_few_windows_give_no_reference() -> None:
    assert NoveltyReference.fit(features(15), features(100)) is None
    assert NoveltyReference.fit(features(100), features(7)) is None


def test_features_are_means_over_cells_with_data_without_the_stem() -> None:
    images = torch.ones(1, 2, 8, 8)
    images[..., :4] = torch.nan
    stem, body = torch.zeros(1, 3, 8, 8), torch.arange(4.0).reshape(1, 1, 2, 2)
    found = window_features(FeatureMaps((stem, body), (8, 8)), images, skip=1)
    assert found.tolist() == [[2.0]]  # of 1 and 3, in the right half


def tracked(reference: NoveltyReference) -> tuple[NoveltyTracker, dict[Window, float]]:
    """A tracker that has seen the windows of a scene of 40 x 30 pixels."""
    tracker = NoveltyTracker(reference, 0)
    windows = [Window(row, col, 16, 16) for row in (0, 8, 14) for col in (0, 8, 16, 24)]
    model = tracker.wrap(lambda images: tracker.observe(maps(images), images))
    expected = {}
    for start in range(0, len(windows), 3):
        batch = windows[start : start + 3]
        images = torch.randn(3, 12, 16, 16, generator=torch.Generator().manual_seed(start))
        tracker.expect(batch)
        model(images)
        distances = reference.distances(images.mean(dim=(2, 3)))
        expected.update(zip(batch, distances.tolist(), strict=True))
    return tracker, expected


def maps(images: torch.Tensor) -> FeatureMaps:
    return FeatureMaps((images,), (16, 16))


def test_the_map_blends_the_distances_of_windows(
    reference: NoveltyReference, tmp_path: Path
) -> None:
    tracker, distances = tracked(reference)
    sums, totals = np.zeros((30, 40)), np.zeros((30, 40))
    for window, distance in distances.items():
        place = np.s_[window.row : window.row + 16, window.col : window.col + 16]
        sums[place] += distance * window_weights(16).numpy()
        totals[place] += window_weights(16).numpy()
    expected = (sums / totals).astype(np.float32)
    np.testing.assert_allclose(tracker.blended(Window(0, 0, 30, 40)), expected, rtol=1e-5)
    image = np.ones((2, 30, 40), np.float32)
    image[:, :5] = -1  # nodata
    source = write_scene(tmp_path / "scene.tif", image)
    with rasterio.open(tracker.write(tmp_path, "scene", source)) as file:
        stored = file.read()
        assert file.descriptions == ("percentile", "distance") and file.nodata == 255
        scale = file.scales[1]
    assert (stored[:, :5] == 255).all()
    np.testing.assert_allclose(
        stored[0, 5:] / 254, reference.percentile(expected)[5:], atol=0.5 / 254 + 1e-5
    )
    relative = (expected / reference.farthest).clip(0, 4)[5:]
    np.testing.assert_allclose(stored[1, 5:] * scale, relative, atol=scale / 2 + 1e-5)
    points = np.array([[3.5, 7.2], [39.0, 29.0]])
    np.testing.assert_allclose(
        tracker.at(points), reference.percentile(expected[[7, 29], [3, 39]]), rtol=1e-5
    )


def test_only_the_first_orientation_counts(reference: NoveltyReference) -> None:
    tracker = NoveltyTracker(reference, 0)
    first, turned = torch.ones(2, 12, 4, 4), torch.zeros(2, 12, 4, 4)

    def both(images: torch.Tensor) -> None:
        tracker.observe(maps(images), images)
        tracker.observe(maps(turned), turned)

    tracker.wrap(both)(first)
    assert torch.equal(tracker.last, reference.distances(torch.ones(2, 12)))
    row = tracker.columns()[0]
    assert row["novelty_distance"] == pytest.approx(float(tracker.last[0]) / reference.farthest)


def test_objects_get_the_novelty_of_their_centre(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "scene.tif", np.ones((2, 30, 40), np.float32))
    package, text = tmp_path / "objects.gpkg", tmp_path / "objects.geojson"
    with DetectionWriter(
        package, text, source, ["ship"], points=False, novelty=lambda centres: centres[:, 0] / 40
    ) as writer:
        boxes = np.array([[0.0, 0, 20, 10], [20, 10, 40, 20]])
        writer.write(boxes, np.array([0.5, 0.25], np.float32), np.zeros(2, np.int64))
    assert geopandas.read_file(package).novelty.tolist() == [0.25, 0.75]
    written = json.loads(text.read_text())["features"]
    assert [each["properties"]["novelty"] for each in written] == [0.25, 0.75]


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": torch.zeros(7)},
        {"mean": torch.full((12,), torch.nan)},
        {"components": torch.zeros(3, 12)},
        {"scale": torch.zeros(12)},
        {"residual": torch.tensor([-1.0])},
        {"quantiles": torch.zeros(8)},
        {"quantiles": torch.zeros(0)},
        {"quantiles": torch.tensor([3.0, 1.0, 2.0])},
        {"mean": torch.zeros(12, dtype=torch.int64)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_statistics_that_no_training_gives_are_refused(
    reference: NoveltyReference, tmp_path: Path, changes: dict[str, torch.Tensor]
) -> None:
    path = tmp_path / "novelty.safetensors"
    reference.save(path)
    assert len(NoveltyReference.load(path).mean) == 12
    replace(reference, **changes).save(path)
    with raises("adapter-invalid", file=path):
        NoveltyReference.load(path)
