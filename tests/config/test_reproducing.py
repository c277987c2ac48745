"""Recipes and commands that reproduce papers are valid and complete."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path

import pytest

from geotune.bench.grid import RunSpec, expand
from geotune.bench.suite import read_suite
from geotune.config import load_recipe
from geotune.config.data_options import NamedOptions
from geotune.config.decoder_options import LinearOptions
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.info import backbone_info

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line.strip()
    for folder in ("peft_geofm", "est")
    for line in (ROOT / "recipes" / folder / "README.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("    geotune fit ")
]


@pytest.mark.parametrize("command", COMMANDS)
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


@pytest.fixture(scope="module")
def configurations() -> list[RunSpec]:
    """The runs of the suite of arXiv 2504.17397 with one seed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        suite = read_suite(Path("recipes/peft_geofm/suite.yaml"))
        specs, _ = expand(suite.model_copy(update={"seeds": [0]}))
    return specs


def test_all_published_configurations_are_valid_recipes(configurations: list[RunSpec]) -> None:
    assert len(configurations) == 202
    for spec in configurations:
        recipe, dataset = spec.recipe, get_dataset_info(spec.labels["recipe"])
        assert isinstance(recipe.data, NamedOptions) and recipe.data.name == dataset.name
        bands = recipe.backbone.bands
        assert isinstance(bands, tuple) and set(bands) <= set(dataset.bands)
        assert set(bands) <= set(recipe.data.normalize)
        backbone = backbone_info(recipe.backbone.name.partition(".")[0])
        assert backbone is not None and backbone["methods"][recipe.method.kind] == "works"
        assert set(recipe.backbone.metadata) <= set(backbone["metadata"])
        train = recipe.train
        assert train.backbone_lr == (train.lr if recipe.method.kind == "full" else None)
        assert (train.monitor, train.patience, train.drop_last) == ("loss", 15, True)


def test_configurations_are_those_of_the_papers_three_experiments(
    configurations: list[RunSpec],
) -> None:
    labels = [spec.labels for spec in configurations]
    decoders = [each for each in labels if each["decoder"] != "default"]
    others = [each for each in labels if each["decoder"] == "default"]
    metadata = [
        each
        for each in others
        if each["model"] == "Prithvi 2.0 300M TL" or each["metadata"] != "none"
    ]
    assert (len(decoders), len(metadata), len(others) - len(metadata)) == (75, 13, 114)
    models = Counter(each["model"] for each in others if each not in metadata)
    assert models == {
        "UNet (Rand.)": 5,
        "ViT (IN-21K)": 5,
        "DeCUR (6 bands)": 10,
        "DeCUR": 8,
        "Clay v1 (6 bands)": 20,
        "Clay v1": 16,
        "Prithvi 1.0 100M": 25,
        "Prithvi 2.0 300M": 25,
    }


def test_linear_decoders_give_each_pixel_of_a_patch_its_own_weights(
    configurations: list[RunSpec],
) -> None:
    strides = {"DeCUR": 32, "Clay": 8, "Prithvi": 16, "ViT": 16}
    linear = [spec for spec in configurations if spec.recipe.decoder.kind == "linear"]
    assert len(linear) == 122
    for spec in linear:
        stride = strides[str(spec.labels["model"]).split()[0]]
        assert isinstance(spec.recipe.decoder, LinearOptions)
        assert spec.recipe.decoder.upsample == stride


def test_every_data_set_of_both_papers_has_a_recipe_and_a_row_in_the_docs() -> None:
    peft = {path.stem for path in (ROOT / "recipes/peft_geofm").glob("*.yaml")} - {"suite"}
    est = {path.stem for path in (ROOT / "recipes/est").glob("*.yaml")}
    assert peft | est <= set(DATASETS) and len(peft) == 5 and len(est) == 7
    text = (ROOT / "docs/reference/datasets.md").read_text(encoding="utf-8")
    assert all(f"| `{name}`" in text for name in DATASETS)
