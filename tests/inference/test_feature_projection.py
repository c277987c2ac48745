"""Principal components and 8-bit integers of features."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from geotune.inference.feature_projection import (
    INT8_NODATA,
    FeatureStatistics,
    Projection,
    Quantization,
)
from helpers.errors import raises


def statistics(batches: int = 3) -> tuple[FeatureStatistics, NDArray[np.float64]]:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((300, 6)) * [5, 3, 2, 1, 0.5, 0.1] + 10
    vectors = vectors @ np.linalg.qr(rng.standard_normal((6, 6)))[0]
    found = FeatureStatistics(batches)
    for part in np.split(vectors, batches):
        found.add(torch.from_numpy(part.astype(np.float32)))
    return found, vectors


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    found, vectors = statistics()
    projection = found.projection(3)
    centred = vectors - vectors.mean(axis=0)
    _, values, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(projection.mean, vectors.mean(axis=0), rtol=1e-5)
    overlap = np.abs(projection.components @ axes[:3].T)
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-4)
    np.testing.assert_allclose(projection.variance, (values**2 / (values**2).sum())[:3], rtol=1e-4)
    largest = np.abs(projection.components).argmax(axis=1)
    assert (projection.components[np.arange(3), largest] > 0).all()
    maps = torch.from_numpy(vectors.astype(np.float32)).T.reshape(1, 6, 15, 20)
    expected = (centred @ projection.components.T).T.reshape(1, 3, 15, 20)
    np.testing.assert_allclose(projection(maps).numpy(), expected, atol=1e-3)


def test_a_file_holds_the_exact_components() -> None:
    projection = statistics()[0].projection(4)
    read = Projection.from_tags(projection.tags, [*projection.band_tags], "map.tif")
    np.testing.assert_array_equal(read.mean, projection.mean)
    np.testing.assert_array_equal(read.components, projection.components)


def test_more_components_than_dimensions_are_refused() -> None:
    with raises("option-invalid", mentions=["pca: found 7, expected 1 to 6"]):
        statistics()[0].projection(7)


def test_a_file_without_components_is_refused() -> None:
    with raises("option-invalid", mentions=["map.tif: holds no principal components"]):
        Projection.from_tags({}, [{}], "map.tif")


@pytest.mark.parametrize("with_components", [False, True])
def test_integers_hold_the_values_within_half_a_step(with_components: bool) -> None:
    found, vectors = statistics()
    projection = found.projection(2) if with_components else None
    values = (
        vectors if projection is None else (vectors - projection.mean) @ projection.components.T
    )
    quantization = found.quantization(projection)
    maps = values.T.reshape(-1, 15, 20).astype(np.float32)
    stored = quantization.encode(maps)
    assert stored.dtype == np.int8 and stored.min() >= -127
    scale, offset = (x.reshape(-1, 1, 1) for x in (quantization.scale, quantization.offset))
    inside = np.abs(stored) < 127
    assert inside.mean() > 0.95
    error = np.abs(stored * scale + offset - maps)
    assert (error <= 0.501 * scale + 1e-5)[inside].all()


def test_missing_cells_have_the_nodata_value_and_outliers_the_ends() -> None:
    quantization = Quantization(np.ones(1, np.float32), np.zeros(1, np.float32))
    values = np.array([[[np.nan, 1e6, -1e6, 3.4]]], dtype=np.float32)
    assert quantization.encode(values).tolist() == [[[INT8_NODATA, 127, -127, 3]]]
