"""Recipes: what is refused and how it is said, overrides, and the constructors they feed."""

from __future__ import annotations

import copy
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from geotune import config as sections
from geotune.config import (
    Recipe,
    apply_override,
    dump_recipe,
    load_recipe,
    parse_recipe,
    parse_sections,
)
from geotune.config.method_options import LoraOptions
from geotune.errors import RecipeError

ROOT = Path(__file__).parents[2]

VALUES: dict[str, Any] = {
    "backbone": {"name": "timm/resnet18", "bands": ["red", "green"]},
    "method": {"kind": "est", "reduction": 4},
    "decoder": {"kind": "unet"},
    "task": {"kind": "segment", "classes": ["background", "ship"]},
    "data": {
        "kind": "scenes",
        "scenes": "*.tif",
        "labels": "{stem}.geojson",
        "split": {"kind": "group", "by": "scene", "val": ["a"], "test": ["b"]},
    },
    "train": {"epochs": 3},
}
GONE = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The values with one of them set, or taken out."""
    values = copy.deepcopy(VALUES)
    section = values
    *parents, last = path.split(".")
    for part in parents:
        section = section[part]
    if value is GONE:
        del section[last]
    else:
        section[last] = value
    return values


def fault(values: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values, "ships.yaml")
    message = str(caught.value)
    assert message.startswith("ships.yaml: ")
    return message.removeprefix("ships.yaml: ")


# ---------------------------------------------------------------- unknown keys and kinds
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("metod", "metod: unknown key; did you mean method?"),
        ("method.reducton", "method.reducton: unknown key; did you mean method.reduction?"),
        ("data.split.tset", "data.split.tset: unknown key; did you mean data.split.test?"),
        ("train.batchsize", "train.batchsize: unknown key; did you mean train.batch_size?"),
        ("task.class", "task.class: unknown key; did you mean task.classes?"),
        ("backbone.patch", "backbone.patch: unknown key; did you mean backbone.patch_size?"),
        ("data.images", "data.images: unknown key; did you mean data.labels?"),
        ("data.xyzzy", "data.xyzzy: unknown key; known keys of data: augment, bands"),
        (
            "method.rank",
            "method.rank: unknown key; known keys of method: adapters, down, every, frozen",
        ),
        ("xyzzy", "xyzzy: unknown key; known keys of a recipe: backbone, data, decoder"),
    ],
)
def test_an_unknown_key_has_its_path_and_the_nearest_right_one(path: str, message: str) -> None:
    assert fault(changed(path, 1)).startswith(message)


def test_a_cache_keeps_no_windows_that_vary_without_end() -> None:
    values = changed("data.augment", {"rotate": 30, "scale": [0.8, 1.25]})
    parse_recipe(values)
    values["train"] = {"cache": "disk"}
    found = fault(values)
    assert found.startswith("data.augment.rotate: makes every window another one in every epoch")
    assert "leave out data.augment.rotate and data.augment.scale, or use train.cache=none" in found
    values["data"]["augment"] = {"flips": False}
    parse_recipe(values)


def test_augment_may_be_yes_or_no() -> None:
    for said in (True, False):
        data = parse_recipe(changed("data.augment", said)).data
        assert data.augment.flips is said and data.augment.rotate == 0


def test_every_fault_is_said() -> None:
    values = changed("metod", 1)
    values["train"] = {"epochs": 0, "lrr": 1}
    assert fault(values).splitlines() == [
        "train.epochs: found 0; input should be greater than 0",
        "train.lrr: unknown key; did you mean train.lr?",
        "metod: unknown key; did you mean method?",
    ]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("method.kind", "ets", "method.kind: found 'ets', expected one of full, frozen, bitfit"),
        ("method.kind", "ets", "did you mean est?"),
        ("decoder.kind", "net", "decoder.kind: found 'net', expected one of linear, fcn, unet"),
        (
            "data.kind",
            "scene",
            "expected one of scenes, chips, synthetic, images, named; did you mean scenes?",
        ),
        ("data.split.kind", "grup", "data.split.kind: found 'grup', expected one of list, random"),
        ("method.kind", GONE, "method.kind: is missing; expected one of full, frozen, bitfit"),
        ("data.split.kind", GONE, "data.split.kind: is missing; expected one of list, random"),
        (
            "task.kind",
            "detct",
            "task.kind: found 'detct', expected one of segment, detect, classify, regress, density",
        ),
    ],
)
def test_an_unknown_kind_has_the_known_ones(path: str, value: Any, message: str) -> None:
    assert message in fault(changed(path, value))


def test_a_key_called_as_its_kind_keeps_its_path() -> None:
    assert fault(changed("data.scenes", 3)).startswith("data.scenes: found 3;")
    assert fault(changed("data.scenes", {"a": 1})).startswith("data.scenes: found {'a': 1};")
    assert fault(changed("data.scenes", GONE)) == "data.scenes: is missing"
    values = changed("method", {"kind": "lora", "lora": 3})
    assert fault(values).startswith("method.lora: unknown key; did you mean method.rank?")


# ---------------------------------------------------------------- wrong values
@pytest.mark.parametrize(
    ("path", "value", "key", "why"),
    [
        ("data.window", 0, "data.window", "found 0; input should be greater than 0"),
        ("train.batch_size", 0, "train.batch_size", "greater than 0"),
        ("train.batch_size", -4, "train.batch_size", "greater than 0"),
        ("train.epochs", "twenty", "train.epochs", "found 'twenty'; input should be a valid int"),
        ("train.epochs", 1.5, "train.epochs", "found 1.5"),
        ("train.lr", 0, "train.lr", "greater than 0"),
        ("train.lr", float("nan"), "train.lr", "finite number"),
        ("train.lr", float("inf"), "train.lr", "finite number"),
        ("train.seed", -1, "train.seed", "greater than or equal to 0"),
        ("train.precision", "bf16", "train.precision", "'32-true', 'bf16-mixed' or '16-mixed'"),
        ("train.devices", 0, "train.devices", "greater than 0"),
        ("train.devices", "many", "train.devices", "input should be 'auto'"),
        ("data.rare_class_fraction", 1.5, "data.rare_class_fraction", "less than or equal to 1"),
        ("data.augment", "maybe", "data.augment", "found 'maybe', expected true, false or"),
        ("data.resolution", "10", "data.resolution", "expected metres a pixel such as 10 m"),
        ("data.resolution", "0 m", "data.resolution", "found '0 m'"),
        ("data.quality", {"pattern": "q/{stem}.tif"}, "data.quality", "neither values nor bits"),
        ("data.augment", {"flip": True}, "data.augment.flip", "did you mean data.augment.flips?"),
        ("data.augment", {"rotate": 270}, "data.augment.rotate", "less than or equal to 180"),
        ("data.augment", {"scale": [1.2, 0.8]}, "data.augment.scale", "found 1.2 and 0.8"),
        ("data.split.val", "durban", "data.split.val", "a valid list"),
        ("method", "est", "method", "found 'est'"),
        ("method.reduction", 0, "method.reduction", "greater than 0"),
        ("method.stem_width", -1, "method.stem_width", "greater than or equal to 0"),
        ("backbone.bands", "B02", "backbone.bands", "found 'B02'; input should be a valid list"),
        ("backbone.bands", [1], "backbone.bands.0", "found 1; input should be a valid string"),
        ("backbone.bands", 0, "backbone.bands", "greater than 0"),
        ("backbone.name", GONE, "backbone.name", "is missing"),
        ("data", GONE, "data", "is missing"),
        ("data.split", GONE, "data.split", "is missing"),
        ("task.classes", ["ship"], "task.classes", "at least 2 items"),
        ("task.classes", ["a", "b", "a"], "task.classes", "names a class twice: a, b, a"),
        ("task.classes", [str(i) for i in range(256)], "task.classes", "256 classes; at most 255"),
        ("task.class_weights", [1.0], "task.class_weights", "1 values for 2 classes"),
        ("task.loss", "ce+mse", "task.loss", "'mse'; expected ce, dice, focal"),
        ("decoder.channels", [], "decoder.channels", "at least 1 item"),
    ],
)
def test_a_wrong_value_has_its_path_and_what_was_expected(
    path: str, value: Any, key: str, why: str
) -> None:
    lines = fault(changed(path, value)).splitlines()
    # a key that takes values of several kinds has a line for each of them
    assert all(key.startswith(line.replace(":", " ").split()[0]) for line in lines), lines
    assert any(line.startswith(key) and why in line for line in lines), lines


def test_a_batch_that_cannot_be_divided_is_refused() -> None:
    values = changed("train", {"batch_size": 6, "accumulate_steps": 4})
    assert fault(values) == "train.batch_size 6 is no multiple of train.accumulate_steps 4"


def test_strategies_that_cannot_be_are_refused() -> None:
    assert "train.strategy" in fault(changed("train", {"strategy": "fspd"}))
    both = changed("train", {"strategy": "fsdp", "precision": "16-mixed"})
    assert "fsdp scales no gradients as train.precision 16-mixed needs it" in fault(both)
    parse_recipe(changed("train", {"strategy": "fsdp"}))  # auto is never 16-mixed


# ---------------------------------------------------------------- files
def test_a_recipe_is_read_with_its_overrides(tmp_path: Path) -> None:
    path = tmp_path / "ships.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    recipe, notes = load_recipe(path, ["train.epochs=7", "method.kind=lora", "method.rank=4"])
    assert recipe.train.epochs == 7
    assert recipe.method == LoraOptions(rank=4)
    assert notes == [
        "method.kind=lora starts the section anew; dropped from the file: method.reduction"
    ]


def test_a_recipe_as_resolved_reads_back_the_same(tmp_path: Path) -> None:
    values = changed("train", {"lr": 1e-5, "run": "runs/Gdańsk"})
    recipe = parse_recipe(values)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    again, notes = load_recipe(path)
    assert again == recipe
    assert notes == []
    assert "Gdańsk" in path.read_text(encoding="utf-8")
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == list(Recipe.model_fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"method: {kind: est}\nmethod: {kind: lora}\n", "the key 'method' stands twice"),
        (b"train:\n  lr: 1\n  epochs: 2\n  lr: 3\n", "the key 'lr' stands twice"),
        (b"a: [1\n", "is no valid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", "is no valid YAML"),
        (b"- a\n", "found list, expected sections"),
        (b"", "found NoneType, expected sections"),
        (b"\xff\xfe\x00", "is no text file"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ships.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.yaml"):
        with pytest.raises(RecipeError, match="cannot be read"):
            load_recipe(path)


RECIPES = sorted(p for p in (ROOT / "recipes").rglob("*.yaml") if p.parent.name != "suites")


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    recipe, notes = load_recipe(path)
    assert notes == []
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_the_promised_recipes_are_there() -> None:
    assert {"ships.yaml", "clouds.yaml"} <= {p.name for p in (ROOT / "recipes").iterdir()}


# ---------------------------------------------------------------- overrides
@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("train.epochs=5", "train.epochs", 5),
        ("train.run=runs/a=b", "train.run", "runs/a=b"),
        ("backbone.bands=[B02, B03]", "backbone.bands", ["B02", "B03"]),
        ("train.patience=null", "train.patience", None),
        ("data.split.val=[c]", "data.split.val", ["c"]),
        ("data.normalize=data", "data.normalize", "data"),
        ("method.kind=est", "method", {"kind": "est", "reduction": 4}),
        ("method.kind=frozen", "method", {"kind": "frozen"}),
        ("data.split.kind=random", "data.split", {"kind": "random"}),
    ],
)
def test_an_override_sets_one_key(override: str, path: str, value: Any) -> None:
    values = copy.deepcopy(VALUES)
    apply_override(values, override)
    found: Any = values
    for part in path.split("."):
        found = found[part]
    assert found == value
    top = path.split(".")[0]
    assert {k: v for k, v in values.items() if k != top} == {
        k: v for k, v in VALUES.items() if k != top
    }


def test_a_new_kind_says_what_it_drops() -> None:
    values = copy.deepcopy(VALUES)
    (note,) = apply_override(values, "data.kind=chips")
    assert note == (
        "data.kind=chips starts the section anew; dropped from the file: "
        "data.scenes, data.labels, data.split"
    )
    assert values["data"] == {"kind": "chips"}
    assert apply_override(values, "data.kind=chips") == []
    assert apply_override(values, "decoder.kind=linear") == []


def test_an_override_of_a_section_that_the_file_lacks() -> None:
    values = changed("train", GONE)
    apply_override(values, "train.epochs=2")
    assert values["train"] == {"epochs": 2}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "'train.epochs': expected key=value, such as train.epochs=5"),
        ("=5", "expected key=value"),
        ("train.epochs=[", "'train.epochs=[': the value is no valid YAML"),
        ("train.epochs.x=3", "'train.epochs.x=3': train.epochs is a value and has no keys"),
    ],
)
def test_a_bad_override_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as caught:
        apply_override(copy.deepcopy(VALUES), override)
    assert message in str(caught.value)


def test_an_override_of_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "ships.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    with pytest.raises(RecipeError, match=r"train\.epoch: unknown key; did you mean train\.epochs"):
        load_recipe(path, ["train.epoch=3"])


def test_sections_of_a_model_are_checked_as_a_recipe_is() -> None:
    model = {name: VALUES[name] for name in ("backbone", "method", "decoder", "task")}
    parse_sections(model, "adapter.json")
    with pytest.raises(RecipeError, match=r"^adapter\.json: method\.reducton: unknown key; did"):
        parse_sections({**model, "method": {"kind": "est", "reducton": 3}}, "adapter.json")
    with pytest.raises(RecipeError, match=r"^adapter\.json: task: is missing"):
        parse_sections({k: v for k, v in model.items() if k != "task"}, "adapter.json")


# ---------------------------------------------------------------- constructors
def kinds_of(union: Any) -> dict[str, type[BaseModel]]:
    return {m.model_fields["kind"].default: m for m in get_args(get_args(union)[0])}


def defaults(model: type[BaseModel]) -> dict[str, Any]:
    fields = {name: f for name, f in model.model_fields.items() if name != "kind"}
    return {
        name: inspect.Parameter.empty
        if (value := f.get_default(call_default_factory=True)) is PydanticUndefined
        else value
        for name, f in fields.items()
    }


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(function).parameters.items()}


def test_sections_are_read_without_what_the_methods_import() -> None:
    code = "import sys, geotune.config; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_backbone_has_the_names_and_defaults_of_its_section() -> None:
    from geotune import backbone

    ours, theirs = parameters(backbone), defaults(sections.Backbone)
    assert ours.keys() == theirs.keys()
    # a recipe may leave the bands to the files
    assert {**ours, "bands": None, "metadata": list(ours["metadata"])} == theirs


@pytest.mark.parametrize("kind", kinds_of(sections.Split))
def test_a_split_has_the_names_of_its_section(kind: str) -> None:
    from geotune.factory.build_data import SPLITS

    ours = parameters(SPLITS[kind])
    assert next(iter(ours)) == "scenes"
    of_all = {"allow_overlap"}  # goes to the checks
    assert set(ours) - {"scenes", "gone"} == set(defaults(kinds_of(sections.Split)[kind])) - of_all


def test_objects_have_their_own_keys() -> None:
    values = changed("task", {"kind": "detect", "classes": ["ship"], "boxes": "oriented"})
    values["decoder"] = {"kind": "rotated_fcos"}
    recipe = parse_recipe(values)
    assert recipe.task.kind == "detect" and recipe.data.kind == "scenes"
    assert recipe.data.min_visibility == 0.5 and recipe.data.format == "auto"
    for key, value, message in (
        ("task.boxes", "round", "task.boxes: found 'round'"),
        ("task.classes", ["a", "a"], "names a class twice"),
        ("data.min_visibility", 0.4, "data.min_visibility: found 0.4"),
        ("data.format", "kitti", "data.format: found 'kitti'"),
        ("data.point_size", "6", "data.point_size: found '6', expected a width such as 3 px"),
    ):
        section, name = key.split(".")
        assert message in fault({**values, section: {**values[section], name: value}})


def test_chips_hold_no_objects() -> None:
    values = changed("task", {"kind": "detect", "classes": ["ship"]})
    values["decoder"] = {"kind": "fcos"}
    chips = {"kind": "chips", "images": "a", "masks": "b", "split": {"kind": "random"}}
    said = fault({**values, "data": chips})
    assert "data.kind chips has masks, not objects" in said
    assert "use data.kind=scenes" in said
    assert "data.min_visibility: is for task.kind detect" in fault(
        changed("data.min_visibility", 0.7)
    )
