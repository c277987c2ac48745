"""Recipes: invalid keys and values, overrides, files, and the components they configure."""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml

from geotune.config import (
    BackboneOptions,
    OptionsModel,
    Recipe,
    TrainOptions,
    apply_override,
    apply_overrides,
    dump_recipe,
    load_recipe,
    parse_recipe,
    parse_sections,
)
from geotune.config.data_options import QualityOptions, ScenesOptions
from geotune.config.error_messages import RENAMED_KEYS
from geotune.config.method_options import LoraOptions
from geotune.errors import RecipeError
from geotune.registry import DECODERS, METHODS, TASKS
from helpers.errors import raises

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
MISSING = object()


def changed(path: str, value: Any) -> dict[str, Any]:
    """The values with one of them changed, or removed if `value` is `MISSING`."""
    values = copy.deepcopy(VALUES)
    section = values
    *parents, last = path.split(".")
    for part in parents:
        section = section[part]
    if value is MISSING:
        del section[last]
    else:
        section[last] = value
    return values


def error_of(values: dict[str, Any]) -> RecipeError:
    """The error of an invalid recipe; its message starts with the file name."""
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values, "ships.yaml")
    assert str(caught.value).startswith("ships.yaml: ")
    return caught.value


def problems(values: dict[str, Any]) -> list[str]:
    """The lines of the error, one per problem."""
    return str(error_of(values)).removeprefix("ships.yaml: ").splitlines()


# ---------------------------------------------------------------- unknown keys and kinds
@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("metod", "did you mean method?"),
        ("method.reducton", "did you mean method.reduction?"),
        ("data.split.tset", "did you mean data.split.test?"),
        ("train.batchsize", "did you mean train.batch_size?"),
        ("train.run_folder", "did you mean train.run?"),
        ("task.class", "did you mean task.classes?"),
        ("backbone.patch", "did you mean backbone.patch_size?"),
        ("data.xyzzy", "known keys of data: augment, band"),
        ("method.rank", "known keys of method: adapters, block_stride, frozen"),
        ("xyzzy", "known keys of a recipe: backbone, data, decoder"),
    ],
)
def test_unknown_key_is_rejected_with_its_path_and_a_suggestion(path: str, advice: str) -> None:
    error = error_of(changed(path, 1))
    assert (error.code, error.key) == ("recipe-invalid", path)
    assert f"{path}: unknown key; {advice}" in str(error)


def test_a_single_value_shows_how_a_list_is_written() -> None:
    assert "such as [csv]" in str(error_of(changed("train.loggers", "csv")))


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_renamed_key_is_rejected_with_its_new_name(old: str, new: str) -> None:
    section, _, key = new.rpartition(".")
    values = copy.deepcopy(VALUES)
    kinds = {
        "method.projection_init": {"kind": "est"},
        "method.num_prompts": {"kind": "vpt"},
        "method.bottleneck_dim": {"kind": "adapter"},
        "method.num_heads": {"kind": "vit_adapter"},
        "decoder.min_stride": {"kind": "fcos"},
        "decoder.num_levels": {"kind": "fcos"},
        "task.multilabel": {"kind": "classify", "classes": ["a", "b"]},
        "task.level": {"kind": "regress"},
        "task.match_radius_m": {"kind": "detect", "classes": ["a"]},
    }
    values[section.partition(".")[0]] |= (
        {"quality": {"pattern": "q", "bits": [1]}} if (section == "data.quality") else {}
    )
    if new in kinds:
        values[section] = kinds[new]
    parent = values
    for name in old.split(".")[:-1]:
        parent = parent.setdefault(name, {})
    parent[old.rpartition(".")[2]] = 1
    error = error_of(values)
    assert (error.code, error.key) == ("recipe-key-renamed", old)
    assert f"{old}: renamed to {new}" in str(error)
    assert key in type_of(values, section).model_fields


def type_of(values: dict[str, Any], section: str) -> type[OptionsModel]:
    """The options class of a section."""
    if section == "train":
        return TrainOptions
    if section == "data.quality":
        return QualityOptions
    if section == "data":
        return ScenesOptions
    registry = {"method": METHODS, "decoder": DECODERS, "task": TASKS}[section]
    options: type[OptionsModel] = registry[values[section]["kind"]].load_options()
    return options


def test_renamed_kind_is_rejected_with_its_new_name() -> None:
    error = error_of(changed("decoder", {"kind": "pooled"}))
    assert (error.code, error.key) == ("recipe-key-renamed", "decoder.kind")
    assert "pooled is renamed to global_pool" in str(error)


def test_key_that_another_method_still_has_is_unknown_rather_than_renamed() -> None:
    error = error_of(changed("method.width", 8))  # est has neither width nor bottleneck_dim
    assert error.code == "recipe-invalid"
    parse_recipe(changed("method", {"kind": "sidetune", "width": 8}))


def test_cache_rejects_random_augmentation() -> None:
    values = changed("data.augment", {"rotate": 30, "scale": [0.8, 1.25]})
    parse_recipe(values)
    values["train"] = {"cache": "disk"}
    error = error_of(values)
    assert (error.code, error.key) == ("recipe-invalid", "data.augment.rotate")
    assert "data.augment.rotate and data.augment.scale" in str(error)
    values["data"]["augment"] = {"flips": False}
    parse_recipe(values)


def test_augment_accepts_true_and_false() -> None:
    for value in (True, False):
        data = parse_recipe(changed("data.augment", value)).data
        assert data.augment.flips is value and data.augment.rotate == 0


def test_every_problem_is_reported() -> None:
    values = changed("metod", 1)
    values["train"] = {"epochs": 0, "lrr": 1}
    assert problems(values) == [
        "train.epochs: found 0; input should be greater than 0",
        "train.lrr: unknown key; did you mean train.lr?",
        "metod: unknown key; did you mean method?",
    ]
    assert error_of(values).key == "train.epochs"


@pytest.mark.parametrize(
    ("path", "value", "key", "message"),
    [
        ("method.kind", "ets", "method.kind", "found 'ets', expected one of full, frozen, bitfit"),
        ("method.kind", "ets", "method.kind", "did you mean est?"),
        ("decoder.kind", "net", "decoder.kind", "found 'net', expected one of linear, fcn, unet"),
        ("data.kind", "scene", "data.kind", "scenes, chips, synthetic, images, named; did you"),
        ("data.split.kind", "grup", "data.split.kind", "found 'grup', expected one of list, rand"),
        ("method.kind", MISSING, "method.kind", "missing; expected one of full, frozen, bitfit"),
        ("data.split.kind", MISSING, "data.split.kind", "missing; expected one of list, random"),
        ("task.kind", "detct", "task.kind", "segment, detect, classify, regress, density"),
    ],
)
def test_unknown_kind_is_rejected_with_the_known_ones(
    path: str, value: Any, key: str, message: str
) -> None:
    error = error_of(changed(path, value))
    assert (error.code, error.key) == ("recipe-invalid", key)
    assert message in str(error)


def test_key_named_like_its_kind_keeps_its_path() -> None:
    assert problems(changed("data.scenes", 3))[0].startswith("data.scenes: found 3;")
    assert problems(changed("data.scenes", {"a": 1}))[0].startswith("data.scenes: found {'a': 1};")
    assert problems(changed("data.scenes", MISSING)) == ["data.scenes: missing"]
    values = changed("method", {"kind": "lora", "lora": 3})
    assert error_of(values).key == "method.lora"


# ---------------------------------------------------------------- invalid values
@pytest.mark.parametrize(
    ("path", "value", "key", "expected"),
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
        ("data.resolution", "10", "data.resolution", "expected metres per pixel such as 10 m"),
        ("data.resolution", "0 m", "data.resolution", "found '0 m'"),
        ("data.sigma", "3", "data.sigma", "found '3', expected a length such as 3 px"),
        ("data.quality", {"pattern": "q/{stem}.tif"}, "data.quality", "neither values nor bits"),
        ("data.augment", {"flip": True}, "data.augment.flip", "did you mean data.augment.flips?"),
        ("data.augment", {"rotate": 270}, "data.augment.rotate", "less than or equal to 180"),
        ("data.augment", {"scale": [1.2, 0.8]}, "data.augment.scale", "found 1.2 and 0.8"),
        ("data.split.val", "durban", "data.split.val", "a valid list"),
        ("method", "est", "method", "found 'est'"),
        ("method.reduction", 0, "method.reduction", "greater than 0"),
        ("method.stem_width", -4, "method.stem_width", "greater than or equal to 0"),
        ("method.stem_width", 6, "method.stem_width", "multiple of 4"),
        ("backbone.bands", "B02", "backbone.bands", "found 'B02'; input should be a valid list"),
        ("backbone.bands", [1], "backbone.bands.0", "found 1; input should be a valid string"),
        ("backbone.bands", 0, "backbone.bands", "greater than 0"),
        ("backbone.name", MISSING, "backbone.name", "missing"),
        ("data", MISSING, "data", "missing"),
        ("data.split", MISSING, "data.split", "missing"),
        ("task.classes", ["ship"], "task.classes", "at least 2 items"),
        ("task.classes", ["a", "b", "a"], "task.classes", "found a more than once"),
        ("task.classes", [str(i) for i in range(256)], "task.classes", "256 classes, expected at"),
        ("task.class_weights", [1.0], "task.class_weights", "1 values for 2 classes"),
        ("task.loss", "ce+mse", "task.loss", "'mse', expected ce, dice, focal"),
        ("decoder.channels", [], "decoder.channels", "at least 1 item"),
        ("train", {"batch_size": 6, "accumulate_steps": 4}, "train.batch_size", "a multiple of"),
        ("train", {"strategy": "fspd"}, "train.strategy", "'fspd'"),
        ("train", {"strategy": "fsdp", "precision": "16-mixed"}, "train.strategy", "16-mixed"),
        ("decoder", {"kind": "global_pool"}, "decoder.kind", "use one of linear, fcn, unet, up"),
        ("decoder", {"kind": "fcos"}, "decoder.kind", "predicts per object"),
    ],
)
def test_invalid_value_is_rejected_with_its_path_and_the_expected_value(
    path: str, value: Any, key: str, expected: str
) -> None:
    error = error_of(changed(path, value))
    assert error.code == "recipe-invalid"
    lines = str(error).removeprefix("ships.yaml: ").splitlines()
    # a key that accepts several types has one line per type
    assert all(key.startswith(line.split(":")[0]) for line in lines), lines
    assert any(line.startswith(key) and expected in line for line in lines), lines


# ---------------------------------------------------------------- files
def test_recipe_is_read_with_overrides(tmp_path: Path) -> None:
    path = tmp_path / "ships.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    recipe, notes = load_recipe(path, ["train.epochs=7", "method.kind=lora", "method.rank=4"])
    assert recipe.train.epochs == 7
    assert recipe.method == LoraOptions(rank=4)
    assert notes == ["method.kind=lora resets the section; removed: method.reduction"]


@pytest.mark.parametrize(
    "overrides", list(permutations(["method.kind=lora", "method.rank=4", "method.stem_width=0"]))
)
def test_overrides_may_come_in_any_order(overrides: tuple[str, ...]) -> None:
    values = copy.deepcopy(VALUES)
    notes = apply_overrides(values, overrides)
    assert values["method"] == {"kind": "lora", "rank": 4, "stem_width": 0}
    assert notes == ["method.kind=lora resets the section; removed: method.reduction"]


def test_sections_come_before_their_keys_and_outer_kinds_before_inner() -> None:
    values = copy.deepcopy(VALUES)
    apply_overrides(
        values,
        ["data.split.seed=3", "data.split.kind=random", "data.kind=chips", "decoder.depth=1",
         "decoder={kind: fcn}"],
    )  # fmt: skip
    assert values["data"] == {"kind": "chips", "split": {"kind": "random", "seed": 3}}
    assert values["decoder"] == {"kind": "fcn", "depth": 1}


def test_resolved_recipe_round_trips(tmp_path: Path) -> None:
    values = changed("train", {"lr": 1e-5, "run": "runs/Gdańsk"})
    recipe = parse_recipe(values)
    path = tmp_path / "recipe.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    loaded, notes = load_recipe(path)
    assert loaded == recipe
    assert notes == []
    assert "Gdańsk" in path.read_text(encoding="utf-8")
    assert list(yaml.safe_load(path.read_text(encoding="utf-8"))) == list(Recipe.model_fields)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"method: {kind: est}\nmethod: {kind: lora}\n", "the key 'method' occurs twice"),
        (b"train:\n  lr: 1\n  epochs: 2\n  lr: 3\n", "the key 'lr' occurs twice"),
        (b"a: [1\n", "invalid YAML"),
        (b"a: !!python/object/apply:os.getcwd []\n", "invalid YAML"),
        (b"- a\n", "found list, expected sections"),
        (b"", "found NoneType, expected sections"),
        (b"\xff\xfe\x00", "not a text file"),
    ],
)
def test_unreadable_file_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "ships.yaml"
    path.write_bytes(content)
    with raises("recipe-unreadable", file=path, mentions=[path, message]):
        load_recipe(path)


def test_missing_file_and_folder_are_errors(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.yaml"):
        with raises("recipe-unreadable", file=path):
            load_recipe(path)


RECIPES = sorted(
    path
    for path in (ROOT / "recipes").rglob("*.yaml")
    if path.parent.name != "suites" and path.name != "suite.yaml"
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_recipe_of_the_project_is_valid(path: Path) -> None:
    recipe, notes = load_recipe(path)
    assert notes == []
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_example_recipes_exist() -> None:
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
def test_override_sets_one_key(override: str, path: str, value: Any) -> None:
    values = copy.deepcopy(VALUES)
    apply_override(values, override)
    section: Any = values
    for part in path.split("."):
        section = section[part]
    assert section == value
    top = path.split(".")[0]
    assert {k: v for k, v in values.items() if k != top} == {
        k: v for k, v in VALUES.items() if k != top
    }


def test_new_kind_notes_the_removed_keys() -> None:
    values = copy.deepcopy(VALUES)
    (note,) = apply_override(values, "data.kind=chips")
    assert note == (
        "data.kind=chips resets the section; removed: data.scenes, data.labels, data.split"
    )
    assert values["data"] == {"kind": "chips"}
    assert apply_override(values, "data.kind=chips") == []
    assert apply_override(values, "decoder.kind=linear") == []


def test_override_creates_a_missing_section() -> None:
    values = changed("train", MISSING)
    apply_override(values, "train.epochs=2")
    assert values["train"] == {"epochs": 2}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.epochs", None),
        ("=5", None),
        ("train.epochs=[", "train.epochs"),
        ("train.epochs.x=3", "train.epochs"),
    ],
)
def test_invalid_override_is_an_error(override: str, key: str | None) -> None:
    with raises("recipe-override", key=key, mentions=[repr(override)]):
        apply_override(copy.deepcopy(VALUES), override)


def test_override_of_an_unknown_key_is_rejected_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "ships.yaml"
    path.write_text(yaml.safe_dump(VALUES))
    with raises("recipe-invalid", key="train.epoch", mentions=["train.epochs"]):
        load_recipe(path, ["train.epoch=3"])


def test_sections_of_a_model_are_validated_like_a_recipe() -> None:
    model = {name: VALUES[name] for name in ("backbone", "method", "decoder", "task")}
    parse_sections(model, "adapter.json")
    with raises("recipe-invalid", key="method.reducton", mentions=["adapter.json: "]):
        parse_sections({**model, "method": {"kind": "est", "reducton": 3}}, "adapter.json")
    with raises("recipe-key-renamed", key="method.every", mentions=["method.block_stride"]):
        parse_sections({**model, "method": {"kind": "est", "every": 2}}, "adapter.json")
    with raises("recipe-invalid", key="task"):
        parse_sections({k: v for k, v in model.items() if k != "task"}, "adapter.json")


def test_object_detection_has_additional_keys() -> None:
    values = changed("task", {"kind": "detect", "classes": ["ship"], "boxes": "oriented"})
    values["decoder"] = {"kind": "rotated_fcos"}
    recipe = parse_recipe(values)
    assert recipe.task.kind == "detect" and recipe.data.kind == "scenes"
    assert recipe.data.min_visibility == 0.5 and recipe.data.format == "auto"
    for key, value, message in (
        ("task.boxes", "round", "found 'round'"),
        ("task.classes", ["a", "a"], "found a more than once"),
        ("data.min_visibility", 0.4, "found 0.4"),
        ("data.format", "kitti", "found 'kitti', expected one of auto, coco"),
        ("data.point_size", "6", "found '6', expected a length such as 3 px"),
        ("decoder.kind", "fcos", "use one of rotated_fcos, oriented_rcnn"),
    ):
        section, name = key.split(".")
        error = error_of({**values, section: {**values[section], name: value}})
        assert error.key == key and message in str(error)


def test_data_without_labels_for_the_task_is_rejected() -> None:
    values = changed("task", {"kind": "detect", "classes": ["ship"]})
    values["decoder"] = {"kind": "fcos"}
    chips = {"kind": "chips", "images": "a", "masks": "b", "split": {"kind": "random"}}
    error = error_of({**values, "data": chips})
    assert error.key == "data.kind" and "use data.kind=scenes" in str(error)
    error = error_of(changed("data.min_visibility", 0.7))
    assert error.key == "data.min_visibility" and "task.kind detect" in str(error)


# ---------------------------------------------------------------- components
REGISTRIES = {"method": METHODS, "decoder": DECODERS, "task": TASKS}


@pytest.mark.parametrize(
    ("section", "kind"), [(name, kind) for name, kinds in REGISTRIES.items() for kind in kinds]
)
def test_registered_options_feed_the_implementation(section: str, kind: str) -> None:
    component = REGISTRIES[section][kind]
    options, implementation = component.load_options(), component.load()
    assert options.model_fields["kind"].default == kind
    assert options.__doc__
    if section == "method":
        assert issubclass(implementation, options)
        assert implementation.model_fields.keys() == options.model_fields.keys()
    else:
        init = implementation.__init__ if isinstance(implementation, type) else implementation
        parameter = get_type_hints(init)["options"]
        assert options in (get_args(parameter) or (parameter,))


@pytest.mark.parametrize(
    ("section", "union"),
    [("method", "MethodSection"), ("decoder", "DecoderSection"), ("task", "TaskSection")],
)
def test_type_checkers_know_every_registered_options_class(section: str, union: str) -> None:
    source = (ROOT / "src/geotune/config" / f"{section}_options.py").read_text(encoding="utf-8")
    static = source.partition("if TYPE_CHECKING:")[2].partition("else:")[0]
    listed = re.findall(r"\w+Options", static)
    own = ["PythonMethodOptions"] if section == "method" else []
    registered = [c.options.partition(":")[2] for c in REGISTRIES[section].values()]
    assert listed == registered + own


def test_backbone_function_has_the_options_of_the_recipe() -> None:
    from geotune import backbone

    parameters = inspect.signature(backbone).parameters
    fields = BackboneOptions.model_fields
    assert parameters.keys() == fields.keys()
    optional = {name: f.default for name, f in fields.items() if name not in ("name", "bands")}
    assert {name: parameters[name].default for name in optional} == optional


def test_config_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, geotune.config; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
