"""Expansion of suites into runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotune.bench.grid import RunSpec, expand
from geotune.bench.suite import read_suite
from geotune.config import load_recipe, parse_recipe
from geotune.registry import METHODS
from helpers.errors import raises

Write = Callable[..., Path]


def specs_of(path: Path) -> list[RunSpec]:
    return expand(read_suite(path))[0]


def test_runs_are_all_combinations_in_order(suite: Write) -> None:
    path = suite(
        grid={"method.kind": ["est", "full"], "size": {"small": {"train.batch_size": 2}}},
        seeds=[3, 5],
        fractions=[1, 0.5],
        baselines={"unet_from_scratch": False, "frozen": False},
    )
    specs = specs_of(path)
    assert [spec.name for spec in specs][:3] == [
        "tiny/est-small-1.0-3",
        "tiny/est-small-1.0-5",
        "tiny/est-small-0.5-3",
    ]
    assert len(specs) == 8 and len({spec.name for spec in specs}) == 8
    last = specs[-1]
    assert last.method == "full" and last.recipe.method.kind == "full"
    assert (last.recipe.train.seed, last.recipe.train.batch_size) == (5, 2)
    assert last.recipe.data.fraction == 0.5
    assert last.context == {"recipe": "tiny", "size": "small", "fraction": "0.5"}


def test_choices_of_a_recipe_add_to_those_of_the_grid(suite: Write, tmp_path: Path) -> None:
    recipe = str(tmp_path / "recipe.yaml")
    choices = {"size": {"small": {"train.lr": 0.01, "train.epochs": 7}}}
    path = suite(
        recipes={"own": {"path": recipe, "choices": choices}, "plain": recipe},
        grid={"size": {"small": {"train.lr": 0.02, "train.batch_size": 2}, "large": {}}},
        baselines=None,
    )
    found = {spec.name: spec.recipe.train for spec in specs_of(path)}
    own, plain = found["own/est-small-0"], found["plain/est-small-0"]
    assert (own.lr, own.epochs, own.batch_size) == (0.01, 7, 2)
    assert (plain.lr, plain.batch_size) == (0.02, 2) and plain.epochs != 7
    assert found["own/est-large-0"] == found["plain/est-large-0"]


def test_overrides_reproduce_the_recipe(suite: Write) -> None:
    changes = {
        "decoder": {"kind": "unet", "channels": [16, 8]},
        "backbone.bands": ["red", "green"],
        "method": {"kind": "frozen", "stem_width": 4},
    }
    for spec in specs_of(suite(grid={"shape": {"a: b, c": changes}}, baselines=None)):
        again, _ = load_recipe(spec.path, spec.overrides)
        assert again == spec.recipe


def test_baselines_keep_stem_and_decoder(suite: Write) -> None:
    path = suite(
        {"method": {"kind": "est", "stem_width": 12, "min_width": 8}, "decoder": {"kind": "fcn"}},
        grid={"method.kind": ["est", "lora"], "width": {"thin": {"decoder.channels": 8}}},
    )
    specs = {spec.method: spec for spec in specs_of(path)}
    assert list(specs) == ["est", "lora", "unet_from_scratch", "frozen"]
    frozen, scratch = specs["frozen"].recipe, specs["unet_from_scratch"].recipe
    assert (
        frozen.method.kind == "frozen"
        and frozen.method.stem_width == scratch.method.stem_width == 12
    )
    assert frozen.decoder == specs["est"].recipe.decoder and frozen.backbone.name == "timm/test_vit"
    assert not scratch.backbone.pretrained and scratch.backbone.name == "timm/resnet18"
    assert list(scratch.backbone.bands or ()) == ["red", "green", "nir"]
    assert (scratch.method.kind, scratch.decoder.kind) == ("full", "unet")
    assert scratch.train.backbone_lr == scratch.train.lr == 3e-3  # no pretrained weights


def test_identical_baselines_share_a_run(suite: Write) -> None:
    specs = specs_of(
        suite(
            grid={
                "method": {"est": {"method.kind": "est"}},
                "decoder.kind": ["linear", "fcn"],
            }
        )
    )
    scratch = [spec for spec in specs if spec.method == "unet_from_scratch"]
    assert [spec.labels["decoder.kind"] for spec in scratch] == ["linear", "fcn"]
    assert len({spec.name for spec in scratch}) == 1
    frozen = [spec for spec in specs if spec.method == "frozen"]
    assert len({spec.name for spec in frozen}) == 2


def test_baselines_are_not_duplicated_and_can_be_switched_off(suite: Write) -> None:
    methods = [c.method for c in specs_of(suite(grid={"method.kind": ["frozen", "est"]}))]
    assert methods == ["frozen", "est", "unet_from_scratch"]
    named = suite(grid={"m": {"probe": {"method": {"kind": "frozen", "stem_width": 0}}}})
    assert [c.method for c in specs_of(named)] == ["probe", "unet_from_scratch"]
    off = suite(baselines={"unet_from_scratch": False, "frozen": False})
    assert [c.method for c in specs_of(off)] == ["est"]


def test_classifiers_of_frozen_features_are_baselines_on_request(suite: Write) -> None:
    on = {"unet_from_scratch": False, "frozen": False, "knn": True, "logistic": True}
    specs = {spec.method: spec.recipe for spec in specs_of(suite(baselines=on))}
    assert list(specs) == ["est", "knn", "logistic"]
    assert specs["knn"].decoder.kind == "knn" and specs["knn"].method.kind == "frozen"
    images = {"kind": "images", "images": "x", "split": {"kind": "random"}}
    path = suite(
        {
            "task": {"kind": "classify", "classes": ["a", "b"]},
            "decoder": {"kind": "global_pool"},
            "data": images,
        },
        baselines=on,
    )
    assert [spec.recipe.decoder.kind for spec in specs_of(path)] == [
        "global_pool",
        "pooled_knn",
        "pooled_logistic",
    ]
    path = suite(
        {
            "task": {"kind": "classify", "classes": ["a", "b"], "multilabel": True},
            "decoder": {"kind": "global_pool"},
            "data": images,
        },
        baselines=on,
    )
    specs_found, notes = expand(read_suite(path))
    assert [spec.method for spec in specs_found] == ["est"]
    assert any("knn is omitted" in note and "several labels" in note for note in notes)


def test_unsupported_baseline_is_omitted_with_a_note(
    suite: Write,
) -> None:
    path = suite(
        {
            "task": {"kind": "classify", "classes": ["a", "b"]},
            "decoder": {"kind": "global_pool"},
            "data": {"kind": "images", "images": "x", "split": {"kind": "random"}},
        }
    )
    specs, notes = expand(read_suite(path))
    assert [spec.method for spec in specs] == ["est", "frozen"]
    assert notes == [
        "tiny: unet_from_scratch is omitted: a UNet predicts per pixel, but task.kind classify "
        "predicts per image"
    ]


def test_excluded_combinations_may_be_invalid(suite: Write) -> None:
    grid = {"method.kind": ["est", "lora"], "r": {"r": {"method.reduction": 4}}}
    with raises("recipe-invalid", mentions=["method.kind lora, r r, seed 0", "reduction"]):
        specs_of(suite(grid=grid))
    kept = specs_of(suite(grid=grid, exclude=[{"method.kind": "lora"}, {"method.kind": "frozen"}]))
    assert [spec.method for spec in kept] == ["est", "unet_from_scratch"]


def test_exclude_accepts_lists_of_labels(suite: Write) -> None:
    grid = {"method.kind": ["est", "lora", "full"], "decoder.kind": ["fcn", "unet"]}
    out = [{"method.kind": ["lora", "full"], "decoder.kind": "fcn"}]
    specs = specs_of(suite(grid=grid, exclude=out, baselines=None))
    pairs = [(spec.method, spec.labels["decoder.kind"]) for spec in specs]
    assert pairs == [("est", "fcn"), ("est", "unet"), ("lora", "unet"), ("full", "unet")]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(["est", "full", "lora", "frozen"]), min_size=1, unique=True),
    rates=st.lists(st.floats(1e-5, 1e-1), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_every_combination_occurs_once_with_its_values(
    suite: Write, kinds: list[str], rates: list[float], seeds: list[int]
) -> None:
    path = suite(grid={"method.kind": kinds, "train.lr": rates}, seeds=seeds)
    specs = specs_of(path)
    own = [spec for spec in specs if spec.method in kinds]
    assert len(own) == len(kinds) * len(rates) * len(seeds)
    assert len({tuple(spec.labels.items()) for spec in specs}) == len(specs)
    base = yaml.safe_load((path.parent / "recipe.yaml").read_text())
    for spec in own:
        values: dict[str, Any] = {**base, "train": {**base["train"]}}
        values["train"] |= {"lr": float(spec.labels["train.lr"]), "seed": spec.labels["seed"]}
        if spec.method != "est":
            values["method"] = {"kind": spec.method}
        assert spec.recipe == parse_recipe(values)


INVALID: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "no recipe": ({"recipes": {}}, "recipe-invalid", ["recipes"]),
    "suite key": ({"sedes": [1]}, "recipe-invalid", ["sedes", "seeds?"]),
    "section key": (
        {"search": {"low": 1e-4, "high": 1e-2, "trails": 3}},
        "recipe-invalid",
        ["search.trails", "search.trials?"],
    ),
    "key in a list of sections": (
        {"published": [{"file": "x", "source": "y", "methid": "m", "values": {"tiny": "v"}}]},
        "recipe-invalid",
        ["published.0.methid", "published.0.method?"],
    ),
    "recipe key": (
        {"grid": {"method.knid": ["est"]}},
        "recipe-invalid",
        ["method.knid", "method.kind?"],
    ),
    "recipe section": ({"grid": {"metod.kind": ["est"]}}, "recipe-invalid", ["metod", "method?"]),
    "value": ({"grid": {"method.kind": ["ets"]}}, "recipe-invalid", ["ets", "est?"]),
    "repeated seed": ({"seeds": [0, 0]}, "suite-run-duplicate", ["tiny/est-0"]),
    "labels with one folder name": (
        {"grid": {"x": {"a/b": {"train.lr": 1e-3}, "a b": {"train.lr": 1e-2}}}},
        "suite-run-duplicate",
        ["tiny/est-a_b-0"],
    ),
    "run folder": ({"set": {"train.run": "x"}}, "recipe-invalid", ["train.run", "folder:"]),
    "seed in the grid": (
        {"grid": {"train.seed": [1]}},
        "recipe-invalid",
        ["grid.train.seed.1", "seeds:"],
    ),
    "reserved axis": ({"grid": {"seed": ["a"]}}, "recipe-invalid", ["grid.seed: reserved"]),
    "unnamed choice": ({"grid": {"decoder": [{"kind": "fcn"}]}}, "recipe-invalid", ["name"]),
    "empty axis": ({"grid": {"method.kind": []}}, "recipe-invalid", ["grid.method.kind: empty"]),
    "excluded label": (
        {"grid": {"method.kind": ["est"]}, "exclude": [{"method.kind": "ets"}]},
        "suite-invalid",
        ["exclude.0.method.kind", "'ets'", "est?"],
    ),
    "excluded label in a list": (
        {"grid": {"method.kind": ["est"]}, "exclude": [{"method.kind": ["est", "lorra"]}]},
        "suite-invalid",
        ["exclude.0.method.kind", "'lorra'"],
    ),
    "axis named as a column": (
        {"grid": {"cost": {"a": {}}}},
        "recipe-invalid",
        ["grid.cost: reserved"],
    ),
    "axis of published results": (
        {
            "published": [
                {
                    "file": "x",
                    "source": "y",
                    "method": "m",
                    "values": {"tiny": "v"},
                    "axes": {"backbone": "model"},
                }
            ]
        },
        "recipe-invalid",
        ["published.0.axes.backbone"],
    ),
    "axis of a recipe's choices": (
        {"recipes": {"a": {"path": "x", "choices": {"half": {"a": {}}}}}},
        "recipe-invalid",
        ["recipes.a.choices", "half"],
    ),
    "label of a recipe's choices": (
        {
            "recipes": {"a": {"path": "x", "choices": {"half": {"c": {}}}}},
            "grid": {"half": {"a": {}, "b": {}}},
        },
        "recipe-invalid",
        ["recipes.a.choices.half", "c"],
    ),
    "key of a recipe's choices": (
        {
            "recipes": {"a": {"path": "x", "choices": {"half": {"a": {"train.seed": 1}}}}},
            "grid": {"half": {"a": {}}},
        },
        "recipe-invalid",
        ["recipes.a.choices.half.a", "seeds:"],
    ),
    "excluded axis": ({"exclude": [{"sead": 0}]}, "suite-invalid", ["exclude.0.sead", "seed?"]),
    "everything excluded": ({"exclude": [{"recipe": "tiny"}]}, "suite-invalid", ["exclude"]),
    "search without bounds": (
        {"search": {"low": 1}},
        "recipe-invalid",
        ["low and high, or values"],
    ),
    "search values and bounds": (
        {"search": {"low": 1, "high": 2, "values": [1]}},
        "recipe-invalid",
        ["values exclude"],
    ),
    "search value twice": ({"search": {"values": [1, 1]}}, "recipe-invalid", ["is repeated"]),
    "search trials": (
        {"search": {"values": [1, 2], "trials": 3}},
        "recipe-invalid",
        ["search.trials: 3", "2 values"],
    ),
    "epochs without a search": (
        {"recipes": {"tiny": {"path": "x", "search_epochs": 3}}},
        "recipe-invalid",
        ["recipes.tiny.search_epochs", "no search"],
    ),
    "search bounds": ({"search": {"low": 1, "high": 0.1}}, "recipe-invalid", ["low 1", "high 0.1"]),
    "recipe of published results": (
        {"published": [{"file": "x", "source": "y", "method": "m", "values": {"tin": "v"}}]},
        "recipe-invalid",
        ["published.0.values.tin", "tiny?"],
    ),
}


@pytest.mark.parametrize("case", INVALID)
def test_invalid_suite_is_refused(suite: Write, case: str) -> None:
    changes, code, mentions = INVALID[case]
    with raises(code, mentions=mentions):
        specs_of(suite(**changes))


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes/suites").glob("*.yaml")), ids=lambda p: p.stem
)
def test_included_suites_expand(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert expand(read_suite(path))[0]


def test_suites_share_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    real, methods, options = (
        {spec.name: spec.recipe for spec in specs_of(ROOT / f"recipes/suites/{name}.yaml")}
        for name in ("real_data", "methods", "est_options")
    )
    assert len(real.keys() & methods.keys()) == 60 and len(real.keys() & options.keys()) == 6
    for others in (methods, options):
        assert all(others[name] == real[name] for name in real.keys() & others.keys())


def test_methods_suite_covers_every_method(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    specs = specs_of(ROOT / "recipes/suites/methods.yaml")
    assert {spec.recipe.method.kind for spec in specs} == set(METHODS)
    assert {len([c for c in specs if c.method == m]) for m in {c.method for c in specs}} == {6}


def test_a_recipe_can_have_its_own_epochs_of_the_search(suite: Write) -> None:
    path = suite(
        recipes={"tiny": "tiny.yaml", "slow": {"path": "slow.yaml", "search_epochs": 8}},
        search={"values": [1e-3, 1e-2], "epochs": 4},
    )
    searches = read_suite(path).searches()
    assert {name: search.epochs for name, search in searches.items()} == {"tiny": 4, "slow": 8}
    assert {search.trials for search in searches.values()} == {2}
