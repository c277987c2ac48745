"""Recipes and commands that reproduce papers are valid and complete."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from geotune.config import load_recipe
from geotune.config.data_options import NamedOptions
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.info import backbone_info
from geotune.registry import METHODS

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "recipes/peft_geofm/rows.txt").read_text(encoding="utf-8").splitlines()
    if not line.startswith("#")
]
COMMANDS = [
    line.strip()
    for folder in ("peft_geofm", "est")
    for line in (ROOT / "recipes" / folder / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("    geotune fit ")
]


@pytest.mark.parametrize("command", [*ROWS, *COMMANDS])
def test_command_is_a_valid_recipe_on_a_published_data_set(command: str) -> None:
    geotune, fit, path, *overrides = shlex.split(command)
    assert (geotune, fit) == ("geotune", "fit")
    recipe, _ = load_recipe(ROOT / path, overrides)
    assert isinstance(recipe.data, NamedOptions)
    dataset = get_dataset_info(recipe.data.name)
    assert Path(path).stem == dataset.name
    assert set(recipe.backbone.bands or ()) <= set(dataset.bands)
    backbone = backbone_info(recipe.backbone.name.removesuffix(".ms_in22k"))
    assert backbone is not None and backbone["methods"][recipe.method.kind] == "works"


def test_rows_have_the_papers_methods_and_unique_runs() -> None:
    recipes = [load_recipe(ROOT / row.split()[2], shlex.split(row)[3:])[0] for row in ROWS]
    assert len(recipes) == 80 == len({recipe.train.run for recipe in recipes})
    assert {recipe.method.kind for recipe in recipes} == {
        "frozen",
        "full",
        "lora",
        "vpt",
        "vit_adapter",
    } & set(METHODS)
    for recipe in recipes:
        assert recipe.train.run is not None
        assert recipe.train.run.name == recipe.method.kind
        full = recipe.method.kind == "full"
        assert recipe.train.backbone_lr == (recipe.train.lr if full else None)


def test_every_data_set_of_both_papers_has_a_recipe_and_a_row_in_the_docs() -> None:
    peft = {path.stem for path in (ROOT / "recipes/peft_geofm").glob("*.yaml")}
    est = {path.stem for path in (ROOT / "recipes/est").glob("*.yaml")}
    assert peft | est <= set(DATASETS) and len(peft) == 5 and len(est) == 7
    text = (ROOT / "docs/datasets.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in DATASETS)
