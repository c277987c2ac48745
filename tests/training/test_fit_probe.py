"""Classifiers of frozen features: equal to scikit-learn, chosen in validation, in ordinary runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geotune
from geotune.adapter_config import load_adapter_config
from geotune.config import load_recipe, parse_recipe
from geotune.config.decoder_options import KnnOptions, LogisticOptions
from geotune.decoders.probe import KnnProbe, LogisticProbe
from geotune.training.fit_probe import _candidates, _draw, _log_prior, _Sample, cell_labels
from geotune.types import IGNORE, FeatureMaps, Tap
from helpers.errors import raises

Values = Callable[..., dict[str, Any]]
TAPS = (Tap("stem1", 2, 1), Tap("fine", 3, 4), Tap("coarse", 4, 8))


def sample(classes: int = 3, count: int = 90) -> _Sample:
    rng = np.random.default_rng(0)
    labels = np.arange(count) % classes
    vectors = rng.standard_normal((count, 7)).astype(np.float32) + labels[:, None] * 0.7
    return _Sample(vectors.astype(np.float32), labels, np.bincount(labels))


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_is_that_of_scikit_learn(classes: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    drawn = sample(classes)
    options = LogisticOptions(C=0.1)
    fitted = _candidates(LogisticProbe(TAPS, classes, options), drawn)[0.1]
    scores = fitted.scores(torch.from_numpy(drawn.vectors))
    expected = linear_model.LogisticRegression(C=0.1, max_iter=300).fit(drawn.vectors, drawn.labels)
    probabilities = expected.predict_proba(drawn.vectors)
    np.testing.assert_allclose(scores.softmax(dim=1).numpy(), probabilities, atol=1e-4)


def test_a_class_without_training_cells_is_never_predicted() -> None:
    pytest.importorskip("sklearn")
    fitted = _candidates(LogisticProbe(TAPS, 4, LogisticOptions(C=1.0)), sample(3))[1.0]
    assert fitted.scores(torch.randn(50, 7)).softmax(dim=1)[:, 3].max() < 1e-6


def test_neighbours_are_those_of_scikit_learn() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    drawn = sample()
    found = _candidates(KnnProbe(TAPS, 3, KnnOptions(neighbours=7)), drawn)[7.0]
    assert isinstance(found, KnnProbe)
    queries = np.random.default_rng(1).standard_normal((40, 7)).astype(np.float32)
    nearest = found.nearest(torch.from_numpy(queries), 7)
    expected = neighbors.KNeighborsClassifier(7).fit(drawn.vectors, drawn.labels)
    votes = expected.predict_proba(queries) * 7
    probabilities = found.scores_of(nearest).exp().numpy()
    np.testing.assert_allclose(probabilities, (votes + 1) / 10, atol=1e-6)


def test_vectors_join_all_maps_but_the_stem_at_the_finest() -> None:
    maps = FeatureMaps(
        (torch.zeros(1, 2, 16, 16), torch.randn(1, 3, 4, 4), torch.ones(1, 4, 2, 2)), (16, 16)
    )
    probe = KnnProbe(TAPS, 3, KnnOptions(max_samples=5))
    vectors = probe.vectors(maps)
    assert vectors.shape == (1, 7, 4, 4)
    assert torch.equal(vectors[:, :3], maps.maps[1]) and (vectors[:, 3:] == 1).all()
    assert probe(maps).shape == (1, 3, 4, 4)


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.sampled_from([0, 1, 2, IGNORE]), min_size=64, max_size=64),
)
def test_the_label_of_a_cell_is_the_most_common_one(labels: list[int]) -> None:
    targets = torch.tensor(labels).reshape(1, 8, 8)
    found = cell_labels(targets[:, :, :6], (8, 8), (2, 2), 3)[0]
    for row, col in np.ndindex(2, 2):
        cell = targets[0, 4 * row : 4 * row + 4, 4 * col : min(4 * col + 4, 6)].flatten()
        counts = np.bincount(cell[cell != IGNORE].numpy(), minlength=3)
        label = int(found[row, col])
        assert label == IGNORE if not counts.any() else counts[label] == counts.max()


def test_vectors_are_drawn_evenly_over_the_classes_and_the_frequencies_known() -> None:
    probe = KnnProbe(TAPS, 2, KnnOptions(max_samples=20))
    labels = torch.zeros(4, 10, 10, dtype=torch.long)
    labels[:, 0, :3] = 1  # 12 of 400 cells
    labels[0, 9] = IGNORE
    vectors = torch.arange(400.0).reshape(4, 1, 10, 10).repeat(1, 7, 1, 1)
    batches = [(vectors[i : i + 2], labels[i : i + 2], (10, 10), (10, 10)) for i in (0, 2)]
    drawn = [_draw(iter(batches), probe, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.bincount(drawn[0].labels).tolist() == [10, 10]
    assert drawn[0].counts.tolist() == [378, 12]
    cells = drawn[0].vectors[:, 0].astype(int)
    assert (labels.flatten()[cells].numpy() == drawn[0].labels).all()
    np.testing.assert_array_equal(drawn[0].vectors, drawn[1].vectors)
    assert not np.array_equal(drawn[0].vectors, drawn[2].vectors)
    prior = _log_prior(drawn[0], 2).exp().numpy()
    np.testing.assert_allclose(prior, [378 / 390 / 0.5, 12 / 390 / 0.5], rtol=1e-5)


@pytest.mark.parametrize("kind", ["knn", "logistic"])
def test_a_run_is_fitted_tested_and_mapped_like_any_other(
    kind: str, tiny_recipe: Callable[..., Path], tiny_scenes: Path, tmp_path: Path
) -> None:
    if kind == "logistic":
        pytest.importorskip("sklearn")
    frozen = {"method": {"kind": "frozen"}, "decoder": {"kind": kind, "max_samples": 300}}
    path = tiny_recipe(frozen)
    result = geotune.fit(path)
    chosen = load_adapter_config(result.run).sections["decoder"]
    assert chosen["C" if kind == "logistic" else "neighbours"] is not None
    assert chosen["max_samples"] <= 300
    history = geotune.load_run(result.run).history
    assert len(history) == 1 and history[0]["val/miou"] == pytest.approx(result.metrics["miou"])
    tested = geotune.test(result.run)
    assert tested["metrics"]["miou"] > 0.4
    [made] = geotune.predict(result.run, tiny_scenes / "scenes" / "d.tif", tmp_path, qgis=False)
    with rasterio.open(made.files[0]) as file, rasterio.open(tiny_scenes / "labels/d.tif") as truth:
        accuracy = (file.read(1) == truth.read(1)).mean()
    assert accuracy > 0.7
    assert geotune.fit(path).status == "complete"
    again = geotune.fit(path, run=tmp_path / "again")
    assert again.metrics == result.metrics
    other = geotune.fit(path, ["train.seed=1"], run=tmp_path / "other")
    first, second = (
        json.loads((run / "adapter.json").read_text())["hash"] for run in (again.run, other.run)
    )
    assert first != second


def test_cached_features_are_used(tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    changes = {"method": {"kind": "frozen"}, "decoder": {"kind": "knn"}}
    options = {"train.cache": "disk", "train.cache_folder": str(cache)}
    result = geotune.fit(tiny_recipe({**changes, **options}))
    assert result.summary["cache"]["computed"] > 0
    again = geotune.fit(tiny_recipe({**changes, **options}), run=tmp_path / "again")
    assert again.summary["cache"]["computed"] == 0


def test_recipes_that_do_not_fit_are_refused(tiny_values: Values) -> None:
    knn = {"decoder": {"kind": "knn"}}
    with raises("recipe-invalid", key="method.kind", mentions=["method.kind=frozen"]):
        parse_recipe(tiny_values(knn))
    frozen = {"method": {"kind": "frozen"}, **knn}
    with raises("recipe-invalid", key="decoder.kind"):
        parse_recipe(tiny_values({**frozen, "task": {"kind": "regress"}}))
    with raises("option-not-applicable", key="decoder.kind"):
        geotune.plan(tiny_values(frozen))


def test_missing_scikit_learn_is_named(
    tiny_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    path = tiny_recipe({"method": {"kind": "frozen"}, "decoder": {"kind": "logistic"}})
    with raises("dependency-missing", mentions=["geotune[bench]"]):
        geotune.fit(path)
    assert load_recipe(path)[0].decoder.kind == "logistic" and not (tmp_path / "run").exists()
