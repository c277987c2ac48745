"""From a suite to its runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geotune.bench.grid import RunSpec, as_overrides, expand
from geotune.bench.suite import read_suite
from geotune.config import load_recipe, parse_recipe
from geotune.errors import RecipeError
from geotune.registry import METHODS

Write = Callable[..., Path]


def cells_of(path: Path) -> list[RunSpec]:
    return expand(read_suite(path))[0]


def test_a_run_a_combination_in_order(suite: Write) -> None:
    path = suite(
        grid={"method.kind": ["est", "full"], "size": {"small": {"train.batch_size": 2}}},
        seeds=[3, 5],
        fractions=[1, 0.5],
        baselines={"unet_from_scratch": False, "frozen": False},
    )
    cells = cells_of(path)
    assert [cell.name for cell in cells][:3] == [
        "tiny/est-small-1.0-3",
        "tiny/est-small-1.0-5",
        "tiny/est-small-0.5-3",
    ]
    assert len(cells) == 8 and len({cell.name for cell in cells}) == 8
    last = cells[-1]
    assert last.method == "full" and last.recipe.method.kind == "full"
    assert (last.recipe.train.seed, last.recipe.train.batch_size) == (5, 2)
    assert last.recipe.data.fraction == 0.5
    assert last.context == {"recipe": "tiny", "size": "small", "fraction": "0.5"}


def test_the_words_of_a_command_give_the_recipe_that_was_read(suite: Write) -> None:
    changes = {
        "decoder": {"kind": "unet", "channels": [16, 8]},
        "backbone.bands": ["red", "green"],
        "method": {"kind": "frozen", "stem_width": 4},
    }
    for cell in cells_of(suite(grid={"shape": {"a: b, c": changes}}, baselines=None)):
        again, _ = load_recipe(cell.path, cell.overrides)
        assert again == cell.recipe


def test_a_kind_comes_before_the_keys_of_its_section() -> None:
    changes = {"method.stem_width": 8, "method.kind": "lora", "decoder": {"kind": "fcn"}, "a.b": 1}
    assert as_overrides(changes) == (
        "decoder={kind: fcn}",
        "method.kind=lora",
        "method.stem_width=8",
        "a.b=1",
    )


def test_baselines_join_every_comparison_with_the_same_stem_and_decoder(suite: Write) -> None:
    path = suite(
        {"method": {"kind": "est", "stem_width": 12, "min_width": 8}, "decoder": {"kind": "fcn"}},
        grid={"method.kind": ["est", "lora"], "width": {"thin": {"decoder.channels": 8}}},
    )
    cells = {cell.method: cell for cell in cells_of(path)}
    assert list(cells) == ["est", "lora", "unet_from_scratch", "frozen"]
    frozen, scratch = cells["frozen"].recipe, cells["unet_from_scratch"].recipe
    assert (
        frozen.method.kind == "frozen"
        and frozen.method.stem_width == scratch.method.stem_width == 12
    )
    assert frozen.decoder == cells["est"].recipe.decoder and frozen.backbone.name == "timm/test_vit"
    assert not scratch.backbone.pretrained and scratch.backbone.name == "timm/resnet18"
    assert scratch.backbone.bands == ["red", "green", "nir"]
    assert (scratch.method.kind, scratch.decoder.kind) == ("full", "unet")
    assert scratch.train.backbone_lr == scratch.train.lr == 3e-3  # nothing is pretrained in it


def test_one_training_that_stands_in_several_comparisons_is_one_run(suite: Write) -> None:
    cells = cells_of(
        suite(
            grid={
                "method": {"est": {"method.kind": "est"}},
                "decoder.kind": ["linear", "fcn"],
            }
        )
    )
    scratch = [cell for cell in cells if cell.method == "unet_from_scratch"]
    assert [cell.labels["decoder.kind"] for cell in scratch] == ["linear", "fcn"]
    assert len({cell.name for cell in scratch}) == 1
    frozen = [cell for cell in cells if cell.method == "frozen"]
    assert len({cell.name for cell in frozen}) == 2


def test_baselines_are_not_added_twice_or_where_they_are_switched_off(suite: Write) -> None:
    methods = [c.method for c in cells_of(suite(grid={"method.kind": ["frozen", "est"]}))]
    assert methods == ["frozen", "est", "unet_from_scratch"]
    named = suite(grid={"m": {"probe": {"method": {"kind": "frozen", "stem_width": 0}}}})
    assert [c.method for c in cells_of(named)] == ["probe", "unet_from_scratch"]
    off = suite(baselines={"unet_from_scratch": False, "frozen": False})
    assert [c.method for c in cells_of(off)] == ["est"]


def test_a_unet_from_scratch_is_left_out_where_it_makes_no_sense_and_a_note_says_so(
    suite: Write,
) -> None:
    path = suite(
        {
            "task": {"kind": "classify", "classes": ["a", "b"]},
            "decoder": {"kind": "global_pool"},
            "data": {"kind": "images", "images": "x", "split": {"kind": "random"}},
        }
    )
    cells, notes = expand(read_suite(path))
    assert [cell.method for cell in cells] == ["est", "frozen"]
    assert notes == [
        "tiny: unet_from_scratch is left out: a UNet gives an answer for each pixel, and task.kind "
        "classify asks for one for each image"
    ]


def test_what_is_left_out_need_not_read(suite: Write) -> None:
    grid = {"method.kind": ["est", "lora"], "r": {"r": {"method.reduction": 4}}}
    with pytest.raises(RecipeError, match=r"tiny with method.kind lora, r r, seed 0: .*reduction"):
        cells_of(suite(grid=grid))
    kept = cells_of(suite(grid=grid, exclude=[{"method.kind": "lora"}, {"method.kind": "frozen"}]))
    assert [cell.method for cell in kept] == ["est", "unet_from_scratch"]


def test_several_labels_of_an_axis_are_left_out_together(suite: Write) -> None:
    grid = {"method.kind": ["est", "lora", "full"], "decoder.kind": ["fcn", "unet"]}
    out = [{"method.kind": ["lora", "full"], "decoder.kind": "fcn"}]
    cells = cells_of(suite(grid=grid, exclude=out, baselines=None))
    found = [(cell.method, cell.labels["decoder.kind"]) for cell in cells]
    assert found == [("est", "fcn"), ("est", "unet"), ("lora", "unet"), ("full", "unet")]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kinds=st.lists(st.sampled_from(["est", "full", "lora", "frozen"]), min_size=1, unique=True),
    rates=st.lists(st.floats(1e-5, 1e-1), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True),
)
def test_every_combination_is_there_once_and_reads_as_its_keys_say(
    suite: Write, kinds: list[str], rates: list[float], seeds: list[int]
) -> None:
    path = suite(grid={"method.kind": kinds, "train.lr": rates}, seeds=seeds)
    cells = cells_of(path)
    own = [cell for cell in cells if cell.method in kinds]
    assert len(own) == len(kinds) * len(rates) * len(seeds)
    assert len({tuple(cell.labels.items()) for cell in cells}) == len(cells)
    base = yaml.safe_load((path.parent / "recipe.yaml").read_text())
    for cell in own:
        values: dict[str, Any] = {**base, "train": {**base["train"]}}
        values["train"] |= {"lr": float(cell.labels["train.lr"]), "seed": cell.labels["seed"]}
        if cell.method != "est":
            values["method"] = {"kind": cell.method}
        assert cell.recipe == parse_recipe(values)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no recipe": ({"recipes": {}}, "recipes"),
    "a suite's key": ({"sedes": [1]}, r"sedes: unknown key; did you mean seeds\?"),
    "a key of a section": (
        {"search": {"low": 1e-4, "high": 1e-2, "trails": 3}},
        r"search.trails: unknown key; did you mean search.trials\?",
    ),
    "a key of a listed section": (
        {"published": [{"file": "x", "source": "y", "methid": "m", "values": {"tiny": "v"}}]},
        r"published.0.methid: unknown key; did you mean published.0.method\?",
    ),
    "a recipe's key": (
        {"grid": {"method.knid": ["est"]}},
        r"method.knid: unknown key; did you mean method.kind\?",
    ),
    "a section of the recipe": (
        {"grid": {"metod.kind": ["est"]}},
        r"metod: unknown key; did you mean method\?",
    ),
    "a value": ({"grid": {"method.kind": ["ets"]}}, "did you mean est"),
    "one folder": ({"seeds": [0, 0]}, "two runs would write to tiny/est-0"),
    "one folder by labels": (
        {"grid": {"x": {"a/b": {"train.lr": 1e-3}, "a b": {"train.lr": 1e-2}}}},
        "two runs would write to tiny/est-a_b-0",
    ),
    "its own run folder": ({"set": {"train.run": "x"}}, "train.run is set by the suite itself"),
    "a seed in the grid": (
        {"grid": {"train.seed": [1]}},
        "grid.train.seed.1: train.seed is set by the suite itself; use seeds:",
    ),
    "an axis of every suite": ({"grid": {"seed": ["a"]}}, "grid.seed: is a name that every suite"),
    "a choice without a name": ({"grid": {"decoder": [{"kind": "fcn"}]}}, "has no name"),
    "an empty axis": ({"grid": {"method.kind": []}}, "grid.method.kind: is empty"),
    "an unknown label to leave out": (
        {"grid": {"method.kind": ["est"]}, "exclude": [{"method.kind": "ets"}]},
        r"exclude.0.method.kind: 'ets' is none of its choices; did you mean est\?",
    ),
    "an unknown label among those to leave out": (
        {"grid": {"method.kind": ["est"]}, "exclude": [{"method.kind": ["est", "lorra"]}]},
        "exclude.0.method.kind: 'lorra' is none of its choices",
    ),
    "an axis with the name of a column": ({"grid": {"cost": {"a": {}}}}, "grid.cost: is a name"),
    "published numbers by another axis": (
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
        "published.0.axes.backbone: is no axis of grid",
    ),
    "an unknown axis to leave out": (
        {"exclude": [{"sead": 0}]},
        r"exclude.0.sead: nothing of that name varies; did you mean seed\?",
    ),
    "everything left out": ({"exclude": [{"recipe": "tiny"}]}, "exclude: leaves no run"),
    "bounds of a search": ({"search": {"low": 1, "high": 0.1}}, "low 1 is not below high 0.1"),
    "published numbers of another recipe": (
        {"published": [{"file": "x", "source": "y", "method": "m", "values": {"tin": "v"}}]},
        r"published.0.values.tin: is no recipe of this suite; did you mean tiny\?",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_before_anything_runs(suite: Write, case: str) -> None:
    changes, said = BAD[case]
    with pytest.raises(RecipeError, match=said):
        cells_of(suite(**changes))


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes/suites").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_suite_of_the_project_expands(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert expand(read_suite(path))[0]


def test_runs_of_one_suite_count_as_done_in_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    real, methods, options = (
        {cell.name: cell.recipe for cell in cells_of(ROOT / f"recipes/suites/{name}.yaml")}
        for name in ("real_data", "methods", "est_options")
    )
    assert len(real.keys() & methods.keys()) == 60 and len(real.keys() & options.keys()) == 6
    for others in (methods, options):
        assert all(others[name] == real[name] for name in real.keys() & others.keys())


def test_every_method_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cells = cells_of(ROOT / "recipes/suites/methods.yaml")
    assert {cell.recipe.method.kind for cell in cells} == set(METHODS)
    assert {len([c for c in cells if c.method == m]) for m in {c.method for c in cells}} == {6}
