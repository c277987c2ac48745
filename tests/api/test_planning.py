"""`geotune plan`: estimated memory, settings for a budget, and training within a budget."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geotune.api.budget_search import as_overrides, search_budget
from geotune.api.environment import fast_frozen_precisions
from geotune.api.planning import plan, plan_to_dict
from geotune.config import Recipe, load_recipe, parse_recipe
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.errors import GeotuneError
from geotune.memory.estimate import DataDependentModelError, PeakEstimate, estimate_peak
from geotune.memory.tracker import TrackedPeak
from helpers.errors import raises

ROOT = Path(__file__).parents[2]
Command = Callable[..., tuple[int, str, str]]
Values = Callable[..., dict[str, Any]]


# ---------------------------------------------------------------- estimated memory
@pytest.mark.parametrize(
    "method",
    [
        {"kind": "full"},
        {"kind": "frozen"},
        {"kind": "lora", "rank": 4},
        {"kind": "est", "min_width": 8, "projection_init": "pca"},
        {"kind": "est", "min_width": 8, "frozen_precision": "int8"},
        {"kind": "adapter", "stem_width": 8},
    ],
    ids=lambda m: "-".join(map(str, m.values())),
)
@pytest.mark.parametrize(
    "changes", [{}, {"train.accumulate_steps": 2, "train.precision": "bf16-mixed"}]
)
def test_estimate_equals_the_tracked_memory_of_training(
    tiny_values: Values, tmp_path: Path, method: dict[str, Any], changes: dict[str, Any]
) -> None:
    """Compare the plan without weights, the estimate of the run and the tensors of its step."""
    from geotune.api.fitting import fit

    samples = 4 * 2
    recipe = parse_recipe(
        tiny_values({"method": method, "train.epochs": 1, "data.samples": samples, **changes})
    )
    planned = plan(recipe).prediction.cpu.total
    memory = fit(recipe, run=tmp_path / "run", estimate_memory=True).summary["peak_memory"]
    assert planned == memory["predicted_bytes"]
    assert memory["tracked_bytes"] == pytest.approx(planned, rel=0.02)
    assert json.loads((tmp_path / "run" / "run.json").read_text())["peak_memory"] == memory
    assert memory["peak_bytes"] > memory["tracked_bytes"]  # of the process


def test_categories_and_scopes_sum_to_the_peak(tiny_values: Values) -> None:
    values = plan_to_dict(plan(parse_recipe(tiny_values({"method.stem_width": 8}))))
    assert sum(values["parts"].values()) == values["peak_bytes"] == values["cpu"]["peak_bytes"]
    by_scope = values["by_place"]
    assert sum(n for parts in by_scope.values() for n in parts.values()) == values["peak_bytes"]
    assert set(by_scope) <= {"backbone", "method", "decoder", "loss", "optimizer"}
    assert "trained" not in by_scope["backbone"] and by_scope["backbone"]["frozen"] > 0
    assert by_scope["method"]["trained"] > 0 and by_scope["decoder"]["trained"] > 0
    gpu = values["gpu"]
    parts = gpu["peak_bytes"] + gpu["allocator_bytes"] + gpu["cuda_context_bytes"]
    assert gpu["total_bytes"] == parts


def test_layers_inserted_into_the_backbone_count_as_the_method(tiny_values: Values) -> None:
    recipe = parse_recipe(tiny_values({"method": {"kind": "lora", "rank": 4, "stem_width": 0}}))
    by_scope = plan(recipe).peak.by_scope
    assert "trained" not in by_scope["backbone"] and by_scope["method"]["trained"] > 0
    assert by_scope["backbone"]["saved"] > 0


def test_bands_are_read_from_the_files_if_the_recipe_names_none(
    tiny_values: Values, tmp_path: Path
) -> None:
    named = plan(parse_recipe(tiny_values())).prediction
    unnamed = plan(parse_recipe(tiny_values({"backbone.bands": None}))).prediction
    assert named.cpu.total == unnamed.cpu.total
    elsewhere = tiny_values(data=tmp_path / "nowhere")
    assert plan(parse_recipe(elsewhere)).prediction.cpu.total == named.cpu.total


def test_plan_does_not_read_weights(tiny_values: Values) -> None:
    changes = {"backbone.pretrained": True, "backbone.weights": "no/such/file.safetensors"}
    assert plan(parse_recipe(tiny_values(changes))).peak.total > 0


def test_data_dependent_model_is_computed(
    tiny_values: Values, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`tests/memory/test_estimate.py` has such a model."""
    expected = plan(parse_recipe(tiny_values())).peak.total

    def fail_without_compute(*arguments: Any, compute: bool = False) -> PeakEstimate:
        if not compute:
            raise DataDependentModelError
        return estimate_peak(*arguments, compute=compute)

    monkeypatch.setattr("geotune.api.planning.estimate_peak", fail_without_compute)
    planned = plan(parse_recipe(tiny_values()))
    assert planned.prediction.computed
    assert any("computed on this CPU" in note for note in planned.notes)
    assert planned.peak.total == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_est_with_vit_large_needs_a_fraction_of_full_fine_tuning() -> None:
    """224 x 224 pixels, a batch of 8, bf16."""
    path = ROOT / "recipes" / "bench" / "vit_large_unet.yaml"

    def peak(*overrides: str) -> int:
        return plan(load_recipe(path, overrides)[0]).peak.total

    full = peak("method.kind=full")
    assert peak() <= 0.27 * full
    assert peak("method.frozen_precision=bf16") <= 0.16 * full
    assert peak("method.frozen_precision=int8") <= 0.12 * full


# ---------------------------------------------------------------- budgets
def test_auto_starts_without_checkpointing(tiny_values: Values) -> None:
    automatic = plan(parse_recipe(tiny_values()))
    [note] = [note for note in automatic.notes if "activation_checkpointing" in note]
    assert "none (auto; decoder or all" in note
    none = plan(parse_recipe(tiny_values({"train.activation_checkpointing": "none"})))
    assert automatic.peak.total == none.peak.total
    assert not any("activation_checkpointing" in note for note in none.notes)
    lora = parse_recipe(tiny_values({"method": {"kind": "lora"}}))
    tight = plan(lora, budget=plan(lora).peak.total - 1)
    assert tight.budget is not None and "train.activation_checkpointing" in {
        key for proposal in tight.budget.proposals for key in proposal.changes
    }


def estimator(bytes_of: Callable[[Recipe], int]) -> Callable[[Recipe], tuple[PeakEstimate, None]]:
    """Estimates by a formula; `full` has no frozen weights to quantize."""

    def estimate(recipe: Recipe) -> tuple[PeakEstimate, None]:
        kind = recipe.method.kind
        if kind == "full" and recipe.method.frozen_precision != "fp32":
            raise GeotuneError("nothing is frozen", code="out-of-memory")
        if kind in ("full", "lora") and recipe.train.cache != "none":
            raise GeotuneError("features change", code="out-of-memory")
        peak = TrackedPeak(bytes_of(recipe), {"backbone": {"saved": bytes_of(recipe)}})
        return PeakEstimate(peak, peak, flops=100), None

    return estimate


def by_formula(recipe: Recipe) -> int:
    frozen = {"fp32": 400, "bf16": 200, "int8": 100}[recipe.method.frozen_precision]
    frozen *= recipe.train.cache == "none"
    micro = recipe.train.batch_size // recipe.train.accumulate_steps
    saved = {"none": 60, "decoder": 50, "all": 40}[recipe.train.activation_checkpointing]
    return {"full": 1600, "lora": frozen + 100}.get(recipe.method.kind, frozen) + micro * saved


def search(recipe: Recipe, budget: int, **options: Any) -> Any:
    return search_budget(recipe, budget, estimator(by_formula), lambda p, _: p.cpu.total, **options)


BATCH = {"train.batch_size": 8, "train.activation_checkpointing": "none"}


@pytest.fixture
def lora(tiny_values: Values) -> Recipe:
    """Needs 400 + 100 + 8 * 60 = 980."""
    return parse_recipe(tiny_values({"method": {"kind": "lora"}, **BATCH}))


@pytest.mark.parametrize(
    ("budget", "changes"),
    [
        (980, {}),
        (900, {"train.activation_checkpointing": "decoder"}),
        (820, {"train.activation_checkpointing": "all"}),
        (750, {"train.accumulate_steps": 2}),  # 740; recomputing alone does not suffice
        (710, {"train.activation_checkpointing": "decoder", "train.accumulate_steps": 2}),
        (620, {"train.accumulate_steps": 4}),
        (
            420,
            {"train.accumulate_steps": 4, "method.frozen_precision": "bf16"},
        ),  # not 8
        (260, {"train.accumulate_steps": 8, "method.frozen_precision": "int8"}),
        (
            240,
            {
                "train.activation_checkpointing": "all",
                "train.accumulate_steps": 8,
                "method.frozen_precision": "int8",
            },
        ),
    ],
)
def test_the_cheapest_changes_that_fit_come_first(
    lora: Recipe, budget: int, changes: dict[str, Any]
) -> None:
    fitting = search(lora, budget)
    first = fitting.proposals[0]
    assert first.changes == changes
    assert first.bytes == by_formula(first.recipe) <= budget
    assert all(candidate.bytes <= budget for candidate in fitting.proposals)
    assert all(candidate.recipe.method.kind == "lora" for candidate in fitting.proposals)
    names = [json.dumps(candidate.changes, sort_keys=True) for candidate in fitting.proposals]
    assert len(set(names)) == len(names)
    ranks = [candidate.rank for candidate in fitting.proposals]
    assert ranks == sorted(ranks)


def test_changes_that_keep_the_results_come_first(lora: Recipe) -> None:
    assert "method.frozen_precision" in search(lora, 530).proposals[0].changes
    # 400 + 100 + 40 with all that keeps the results
    assert "method.frozen_precision" not in search(lora, 545).proposals[0].changes


def test_frozen_weights_are_not_rounded_where_that_is_slow(
    lora: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    for fast in ([], ["int8"]):
        found = search(lora, 530, frozen_precisions=fast)
        tried = {c.changes.get("method.frozen_precision") for c in found.proposals}
        assert tried - {None} <= {*fast}
        assert bool(found.proposals[0].recipe.method.kind == "lora") == bool(fast)
    asked: list[tuple[str, str, str]] = []

    def factor(frozen: str, precision: str, device: torch.device) -> float:
        asked.append((frozen, precision, device.type))
        return {"bf16": 1.5, "int8": 100.0}[frozen]

    monkeypatch.setattr("geotune.api.environment.frozen_factor", factor)
    assert fast_frozen_precisions(lora.train) == ["bf16"]
    assert asked == [("bf16", "32-true", "cpu"), ("int8", "32-true", "cpu")]
    if not torch.cuda.is_available():  # a device that is not here is not measured
        other = lora.train.model_copy(update={"accelerator": "gpu"})
        assert fast_frozen_precisions(other) == ["bf16", "int8"]


def test_smaller_micro_batches_keep_the_batch(lora: Recipe) -> None:
    for candidate in search(lora, 300).proposals:
        train = candidate.recipe.train
        assert train.batch_size == 8 and train.batch_size % train.accumulate_steps == 0
        if train.accumulate_steps > 1:
            assert any("batch norm" in note for note in candidate.notes)


def test_another_method_is_proposed_last_with_a_note(tiny_values: Values) -> None:
    full = parse_recipe(tiny_values({"method": {"kind": "full", "stem_width": 8}, **BATCH}))
    fitting = search(full, 500)
    first = fitting.proposals[0]
    assert first.recipe.method.kind == "est" and first.recipe.method.stem_width == 8
    assert any("another method" in note for note in first.notes)
    assert "method.kind=est" in as_overrides(first.changes)


def test_smallest_setting_is_returned_if_none_fits(lora: Recipe) -> None:
    fitting = search(lora, 10)
    assert fitting.proposals == []
    assert fitting.smallest.bytes == 40  # est or frozen from a cache, one window at a time
    assert fitting.largest_component == ("saved", "backbone", 40)


def test_cache_is_proposed_last_and_only_for_a_frozen_backbone(
    tiny_values: Values, lora: Recipe
) -> None:
    est = parse_recipe(tiny_values(BATCH))
    fitting = search(est, 45)
    changes = {
        "train.accumulate_steps": 8,
        "train.activation_checkpointing": "all",
        "train.cache": "disk",
    }
    assert fitting.proposals[0].changes == changes  # with a cache, frozen_precision saves nothing
    assert search(est, 200).proposals[0].changes.keys() == {
        "train.activation_checkpointing",
        "train.accumulate_steps",
        "method.frozen_precision",
    }
    first = search(lora, 150).proposals[0]
    assert first.recipe.method.kind == "est" and "train.cache" not in first.changes


def test_several_processes_share_a_batch(lora: Recipe) -> None:
    for candidate in search(lora, 400, world=2).proposals:
        assert 8 % (2 * candidate.recipe.train.accumulate_steps) == 0


# ---------------------------------------------------------------- objects
@pytest.mark.parametrize("kind", ["retinanet", "fcos"])
def test_the_labels_tell_the_number_of_objects(
    tiny_values: Values, write_tiny_scenes: Callable[[Path], Path], tmp_path: Path, kind: str
) -> None:
    folder = write_tiny_scenes(tmp_path / "data")
    changes = {
        "task": {"kind": "detect", "classes": ["tree"]},
        "decoder": {"kind": kind, "channels": 16},
        "data.labels": f"{folder}/objects/{{stem}}.txt",
    }
    values = tiny_values(changes, data=folder)
    [unknown] = [note for note in plan(parse_recipe(values)).notes if "objects" in note]
    assert unknown.startswith("32 objects in a window assumed: ")
    (folder / "objects").mkdir()

    def peak(objects: int) -> int:
        rng = np.random.default_rng(0)
        for name in "abcd":
            lines = [
                f"0 {x:.3f} {y:.3f} 0.02 0.02" for x, y in rng.uniform(0.4, 0.55, (objects, 2))
            ]
            (folder / "objects" / f"{name}.txt").write_text("\n".join(lines))
        planned = plan(parse_recipe(values))
        assert any(f"{objects:,} object" in note for note in planned.notes)
        return planned.peak.total

    few, many, crowded = peak(4), peak(64), peak(2000)
    assert few <= many < crowded
    # compared in chunks: the pairs of 2000 objects need no more than those of a chunk
    assert crowded - few < 2000 * 32 * 32 * 9 * 4


def test_the_fullest_window_is_that_around_some_object() -> None:
    rng = np.random.default_rng(0)
    corners = np.concatenate([rng.uniform(0, 500, (200, 2)), rng.uniform(300, 330, (50, 2))])
    boxes = np.concatenate([corners, corners + rng.uniform(2, 9, (250, 2))], axis=1)
    labels = ObjectLabels(
        Path("x"),
        ("a",),
        (512, 512),
        boxes,
        np.zeros(250, np.int64),
        np.zeros(250, bool),
        0.5,
        True,
    )
    expected = 0
    for x, y in (boxes[:, :2] + boxes[:, 2:]) / 2:
        seen = (boxes[:, 0] <= x + 32) & (boxes[:, 2] >= x - 32)
        expected = max(expected, (seen & (boxes[:, 1] <= y + 32) & (boxes[:, 3] >= y - 32)).sum())
    assert labels.most_in_window(64) == expected >= 50
    assert (
        ObjectLabels(
            Path("x"),
            ("a",),
            (9, 9),
            boxes[:0],
            np.zeros(0, np.int64),
            np.zeros(0, bool),
            0.5,
            None,
        ).most_in_window(64)
        == 0
    )


# ---------------------------------------------------------------- feature cache
@pytest.mark.parametrize("method", ["est", "frozen", "dtl"])
def test_estimate_equals_the_tracked_memory_of_cached_training(
    tiny_values: Values, tmp_path: Path, method: str
) -> None:
    from geotune.api.fitting import fit

    changes: dict[str, Any] = {"method": {"kind": method, "stem_width": 0}, "train.epochs": 1}
    changes |= {"train.cache": "disk", "train.cache_folder": str(tmp_path / "cache")}
    recipe = parse_recipe(tiny_values({**changes, "train.precision": "bf16-mixed"}))
    planned = plan(recipe)
    summary = fit(recipe, run=tmp_path / "run", estimate_memory=True).summary
    memory = summary["peak_memory"]
    assert planned.peak.total == memory["predicted_bytes"]
    assert memory["tracked_bytes"] == pytest.approx(planned.peak.total, rel=0.02)
    assert planned.cache is not None and planned.cache.train_bytes is not None
    assert planned.cache.populate_bytes > planned.peak.by_scope.get("backbone", {}).get("frozen", 0)
    features = summary["cache"]["samples"] * planned.cache.window_bytes  # without headers
    assert features < summary["cache"]["bytes"] < features + 100_000
    assert planned.cache.train_bytes == 8 * 8 * planned.cache.window_bytes
    assert any("train.cache disk" in note for note in planned.notes)


def test_cache_of_a_trained_backbone_is_an_error(tiny_values: Values) -> None:
    values = tiny_values({"method": {"kind": "lora"}, "train.cache": "disk"})
    with raises("cache-not-possible", key="train.cache", mentions=["lora"]):
        plan(parse_recipe(values))


# ---------------------------------------------------------------- commands
def test_plan_command(geotune: Command, tiny_recipe: Callable[..., Path], tmp_path: Path) -> None:
    figure = tmp_path / "parts.svg"
    recipe = tiny_recipe({"method": {"kind": "full", "stem_width": 0}})
    code, out, err = geotune("plan", recipe, "--figure", figure)
    assert code == 0, err
    for word in ("frozen", "optimizer state", "saved", "backbone", "decoder", "on a GPU"):
        assert word in out
    assert "assumed" in out and figure.read_text().lstrip().startswith("<?xml")
    code, out, err = geotune("plan", recipe, "--json")
    peak = json.loads(out)["peak_bytes"]
    code, out, err = geotune("plan", recipe, "--budget", f"{0.8 * peak:.0f}", "--json")
    assert code == 0, err
    values = json.loads(out)
    assert values["budget_bytes"] == round(0.8 * peak) and values["proposals"]
    assert all(proposal["peak_bytes"] <= 0.8 * peak for proposal in values["proposals"])
    assert all(proposal["relative_time"] > 0 for proposal in values["proposals"])
    code, out, err = geotune("plan", recipe, "--budget", "1kB")
    assert code == 0 and "no setting fits" in out and "largest component" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("amount", ["lots", "8 parsecs", "-3GB", "0", ""])
def test_invalid_budget_is_an_error(
    geotune: Command, tiny_recipe: Callable[..., Path], amount: str
) -> None:
    code, _, err = geotune("plan", tiny_recipe(), f"--budget={amount}")
    assert code == 1 and "--budget" in err and "8GB" in err
    code, _, err = geotune("fit", tiny_recipe(), f"train.memory_budget={amount or 'none'}")
    assert code == 1 and "train.memory_budget" in err


def test_training_stays_within_its_budget(
    geotune: Command, tiny_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = tiny_recipe({"method": {"kind": "full", "stem_width": 0}, "train.epochs": 1})
    peak = json.loads(geotune("plan", recipe, "--json")[1])["peak_bytes"]
    budget = f"train.memory_budget={0.9 * peak:.0f}"
    code, out, err = geotune("fit", recipe, budget, "--json")
    assert code == 0, err
    assert "train.memory_budget" in err and "predicted" in err
    result = json.loads(out)
    assert result["summary"]["peak_memory"]["predicted_bytes"] <= 0.9 * peak
    assert result["summary"]["peak_memory"]["tracked_bytes"] <= 0.91 * peak
    used = load_recipe(tmp_path / "run" / "recipe.yaml")[0]
    requested = load_recipe(tmp_path / "run" / "asked.yaml")[0]
    asked = load_recipe(recipe, [budget])[0]
    assert requested == asked.with_train(activation_checkpointing="none") != used
    code, out, _ = geotune("fit", recipe, budget, "--json")
    assert code == 0 and json.loads(out)["status"] == "complete"
    code, _, err = geotune("fit", recipe, "train.memory_budget=900GB")
    assert code == 1 and "another recipe" in err
    code, _, err = geotune("fit", recipe, "train.memory_budget=1kB", "--overwrite")
    assert code == 1 and "no setting fits" in err and "(memory-budget)" in err
    assert torch.is_grad_enabled()
