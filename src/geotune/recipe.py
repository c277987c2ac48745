"""A recipe: one YAML file that says what is trained, on what, and how.

Every section is a pydantic model; a field has the name of the constructor parameter that it
feeds (`build.py` turns sections into objects). Nothing heavy is imported here.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Parsed = TypeVar("Parsed", bound="Section")


class RecipeError(Exception):
    """A recipe that cannot be used; the message names the key and what to do."""


class Section(BaseModel):
    """A part of a recipe: unknown keys are refused, values are not changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# ---------------------------------------------------------------- backbone
class Backbone(Section):
    """Which pretrained encoder, with which weights and bands."""

    name: str
    weights: Path | None = Field(None, description="file or folder with the weights")
    pretrained: bool = Field(True, description="false asks for random weights")
    bands: list[str] | PositiveInt | None = Field(
        None,
        description="band names in the order the model gets them, or how many there are",
    )
    patch_size: PositiveInt | None = Field(None, description="for models with a flexible patch")


# ---------------------------------------------------------------- methods
class Full(Section):
    """Every parameter trains."""

    kind: Literal["full"] = "full"
    stem: int = Field(
        32, ge=0, description="width of the convolutional branch on the image; 0: none"
    )


class Frozen(Section):
    """Nothing in the backbone trains."""

    kind: Literal["frozen"] = "frozen"
    stem: int = Field(32, ge=0)


class Lora(Section):
    """Low-rank updates of the backbone's layers."""

    kind: Literal["lora"] = "lora"
    rank: PositiveInt = 16
    alpha: PositiveFloat = 16
    dropout: Share = 0.0
    targets: list[str] | None = Field(
        None, description="layer names; by default query, value and MLP"
    )
    stem: int = Field(32, ge=0)


class Est(Section):
    """Efficient side-tuning: a small network beside the frozen backbone."""

    kind: Literal["est"] = "est"
    reduction: PositiveInt = 8
    min_width: PositiveInt = 64
    fuse: Literal["sum", "side"] = "side"
    every: PositiveInt | None = Field(None, description="tap every n-th block; by default by depth")
    kernel_size: PositiveInt = 3
    stem: int = Field(32, ge=0)


Method = Annotated[Full | Frozen | Lora | Est, Field(discriminator="kind")]


# ---------------------------------------------------------------- decoders
class Linear(Section):
    """One 1x1 convolution on the maps that the encoder hands on."""

    kind: Literal["linear"] = "linear"
    levels: Literal["all", "last"] = "all"


class Fcn(Section):
    """A few convolutions on the maps, brought to the finest of them."""

    kind: Literal["fcn"] = "fcn"
    channels: PositiveInt = 128
    depth: PositiveInt = 2


class Unet(Section):
    """UNet's decoder: from coarse to fine, with skips."""

    kind: Literal["unet"] = "unet"
    channels: list[PositiveInt] = Field(
        default=[256, 128, 64, 32, 16], min_length=1, description="widths, coarse to fine"
    )


class Upernet(Section):
    """UPerNet's decoder: pyramid pooling and a feature pyramid."""

    kind: Literal["upernet"] = "upernet"
    channels: PositiveInt = 128


Decoder = Annotated[Linear | Fcn | Unet | Upernet, Field(discriminator="kind")]


# ---------------------------------------------------------------- tasks
class Segment(Section):
    """A class for every pixel."""

    kind: Literal["segment"] = "segment"
    classes: list[str] = Field(min_length=2)
    loss: str = Field("ce+dice", description="ce, dice, focal, or their sum: ce+dice")
    class_weights: list[PositiveFloat] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Segment:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"task.classes names a class twice: {', '.join(self.classes)}")
        if len(self.classes) > 255:
            raise ValueError(f"task.classes has {len(self.classes)} classes; at most 255 fit a map")
        if self.class_weights is not None and len(self.class_weights) != len(self.classes):
            raise ValueError(
                f"task.class_weights has {len(self.class_weights)} values "
                f"for {len(self.classes)} classes"
            )
        parts = [part.strip() for part in self.loss.split("+")]
        unknown = [part for part in parts if part not in ("ce", "dice", "focal")]
        if unknown:
            raise ValueError(
                f"task.loss names {', '.join(map(repr, unknown))}; "
                "expected ce, dice, focal or a sum such as ce+dice"
            )
        return self


Task = Annotated[Segment, Field()]


# ---------------------------------------------------------------- data
class ListSplit(Section):
    """Scenes or chips of each part by name."""

    kind: Literal["list"] = "list"
    train: list[str] | Path
    val: list[str] | Path
    test: list[str] | Path = Field(default_factory=list)


class RandomSplit(Section):
    """Whole scenes or chips drawn at random into the parts."""

    kind: Literal["random"] = "random"
    val: Share = 0.2
    test: Share = 0.2
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> RandomSplit:
        if self.val + self.test >= 1:
            raise ValueError(
                f"data.split: val {self.val} and test {self.test} leave nothing to train on"
            )
        return self


class GroupSplit(Section):
    """Groups held out by name; what is not named trains."""

    kind: Literal["group"] = "group"
    by: str = Field(
        "scene", description="`scene`, or a regular expression whose first group is the name"
    )
    val: list[str]
    test: list[str] = Field(default_factory=list)


Split = Annotated[ListSplit | RandomSplit | GroupSplit, Field(discriminator="kind")]


class _Labelled(Section):
    """What every kind of data has."""

    bands: list[str] | None = Field(
        None, description="names of the files' bands in file order, where the files do not say"
    )
    nodata: float | None = Field(None, description="where the files do not say")
    window: PositiveInt = 128
    samples: PositiveInt | None = Field(
        None,
        description="training windows an epoch; by default what covers the training scenes once",
    )
    focus: Share = Field(
        0.5, description="share of training windows drawn around a pixel of a rare class"
    )
    augment: bool = Field(True, description="flips and quarter turns of training windows")
    brightness: Share = Field(
        0.2, description="how much the light of training windows varies: gain and offset; 0: none"
    )
    normalize: Literal["auto", "backbone", "data"] = "auto"
    class_values: dict[str, int] | None = Field(
        None, description="class name to value in raster labels; by default the class's index"
    )
    class_field: str | None = Field(
        None,
        description="attribute of vector labels that holds the class; empty: every polygon is of "
        "the second class",
    )
    ignore_values: list[int] = Field(
        default_factory=lambda: [255], description="values of raster labels that are not counted"
    )
    unlabelled: Literal["background", "ignore"] | None = Field(
        None,
        description="pixels outside vector labels: the first class, or not counted; by default the "
        "first class where it is called background",
    )


class Scenes(_Labelled):
    """Whole scenes with raster or vector labels, cut into windows."""

    kind: Literal["scenes"] = "scenes"
    scenes: str | list[str] = Field(
        description="files or patterns; `{band}` where each band has a file, `{scene}` where the "
        "scene's name stands in the path"
    )
    labels: str = Field(description="pattern of the label file, with `{stem}` for the scene's name")
    split: Split


class Chips(_Labelled):
    """A folder of images and a folder of masks, matched by stem."""

    kind: Literal["chips"] = "chips"
    images: Path
    masks: Path
    image_suffix: str = Field("", description="what the image's stem has and the mask's lacks")
    mask_suffix: str = Field("", description="what the mask's stem has and the image's lacks")
    split: Split


class Synthetic(_Labelled):
    """Scenes that geotune makes itself, with water, woods, fields, towns, clouds and shadows."""

    kind: Literal["synthetic"] = "synthetic"
    folder: Path = Path("synthetic")
    count: PositiveInt = 4
    size: int = Field(512, ge=64)
    seed: int = Field(0, ge=0)
    split: Split = Field(default_factory=lambda: RandomSplit(val=0.25, test=0.25))


Data = Annotated[Scenes | Chips | Synthetic, Field(discriminator="kind")]


# ---------------------------------------------------------------- training
class Train(Section):
    """How long, how fast, on what."""

    run: Path | None = Field(None, description="run folder; by default runs/<recipe's name>")
    epochs: PositiveInt = 20
    batch_size: PositiveInt = Field(16, description="windows a step, over all devices")
    accumulate: PositiveInt = Field(1, description="parts in which a step's batch is computed")
    lr: PositiveFloat = 1e-3
    backbone_lr: PositiveFloat | None = Field(
        None, description="for trained parts of the backbone; by default a tenth of lr for full"
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    schedule: Literal["cosine", "plateau", "constant"] = "cosine"
    warmup: Share = Field(0.05, description="share of all steps with a rising rate")
    clip: Annotated[float, Field(ge=0)] = Field(1.0, description="gradient norm; 0: none")
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    patience: PositiveInt | None = Field(
        None, description="epochs without a better metric before it stops; by default never"
    )
    monitor: str | None = Field(None, description="metric of the best epoch; by default the task's")
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 0
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: PositiveInt | Literal["auto"] = "auto"
    nodes: PositiveInt = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"

    @model_validator(mode="after")
    def _fits(self) -> Train:
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"train.batch_size {self.batch_size} is no multiple of "
                f"train.accumulate {self.accumulate}"
            )
        return self


class Sections(Section):
    """What describes a model without its data and training."""

    backbone: Backbone
    method: Method
    decoder: Decoder
    task: Task


class Recipe(Sections):
    """The whole recipe."""

    data: Data
    train: Train = Train()


# ---------------------------------------------------------------- reading
def read_recipe(path: Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[str]]:
    """Read a recipe and apply `key=value` overrides.

    Returns the recipe and the notes a user should see (such as keys that a new `kind` dropped).
    Raises `RecipeError` for a file that cannot be read, an unknown key or a wrong value.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RecipeError(
            f"{path}: cannot be read ({error.strerror}); give a recipe file"
        ) from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: is no text file; give a recipe in YAML") from error
    try:
        values = _load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: is no valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise RecipeError(
            f"{path}: found {type(values).__name__}, expected sections such as backbone:"
        )
    notes: list[str] = []
    for override in overrides:
        notes += apply_override(values, override)
    return parse_recipe(values, str(path)), notes


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once in its section."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def _load_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)


def apply_override(values: dict[str, Any], override: str) -> list[str]:
    """Set one `key=value` in a recipe's values; a new `kind` starts its section anew."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise RecipeError(f"{override!r}: expected key=value, such as train.epochs=5")
    parts = key.split(".")
    try:
        value = _load_yaml(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{override!r}: the value is no valid YAML: {error}") from error
    section = values
    for depth, part in enumerate(parts[:-1]):
        if not isinstance(section.setdefault(part, {}), dict):
            raise RecipeError(
                f"{override!r}: {'.'.join(parts[: depth + 1])} is a value and has no keys below it"
            )
        section = section[part]
    if parts[-1] == "kind" and section.get("kind", value) != value:
        dropped = [name for name in section if name != "kind"]
        section.clear()
        section["kind"] = value
        if dropped:
            here = ".".join(parts[:-1])
            return [
                f"{override} starts the section anew; dropped from the file: "
                + ", ".join(f"{here}.{name}" for name in dropped)
            ]
        return []
    section[parts[-1]] = value
    return []


def parse_recipe(values: dict[str, Any], source: str = "recipe") -> Recipe:
    """Check a recipe's values. Raises `RecipeError` that lists every fault with its full path."""
    return _parse(Recipe, values, source)


def parse_sections(values: dict[str, Any], source: str) -> Sections:
    """Check the sections that describe a model, as `parse_recipe` checks all."""
    return _parse(Sections, values, source)


def _parse(model: type[Parsed], values: dict[str, Any], source: str) -> Parsed:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        faults = dict.fromkeys(_say(fault, values) for fault in error.errors())
        raise RecipeError(f"{source}: " + "\n".join(faults)) from error


def _say(fault: Any, values: dict[str, Any]) -> str:
    """One pydantic fault as a sentence with the key's full path."""
    where = list(_path(fault["loc"], values, missing=fault["type"] == "missing"))
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        known = sorted(_known_keys(where[:-1], values))
        near = difflib.get_close_matches(where[-1], known, n=1, cutoff=0.5)
        prefix = ".".join(where[:-1])
        advice = (
            f"did you mean {'.'.join([*where[:-1], near[0]])}?"
            if near
            else f"known keys of {prefix or 'a recipe'}: {', '.join(known)}"
        )
        return f"{key}: unknown key; {advice}"
    if fault["type"] == "missing":
        return f"{key}: is missing"
    if fault["type"] in ("union_tag_invalid", "union_tag_not_found"):
        expected = fault.get("ctx", {}).get("expected_tags", "")
        found = fault.get("ctx", {}).get("tag")
        if found is None:
            kinds = [m.model_fields["kind"].default for m in _models_at(where, values)]
            return f"{key}.kind: is missing; expected one of {', '.join(kinds)}"
        choices = [tag.strip(" '") for tag in expected.split(",")]
        near = difflib.get_close_matches(str(found), choices, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{key}.kind: found {found!r}, expected one of {', '.join(choices)}{hint}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return message if not key or message.startswith(key.split(".")[0]) else f"{key}: {message}"
    return f"{key}: found {fault['input']!r}; {message[0].lower()}{message[1:]}"


def _path(location: Sequence[str | int], values: dict[str, Any], missing: bool) -> Iterator[str]:
    """The keys of a pydantic location, without what it adds for the branches of unions.

    Only the last key of a `missing` fault need not be in the values.
    """
    here: Any = values
    entered = True  # just stepped into `here`: a union's tag can only stand first
    for depth, part in enumerate(location):
        if entered and isinstance(here, dict) and here.get("kind") == part:
            entered = False
            continue
        if isinstance(here, list) and isinstance(part, int):
            yield str(part)
            here = here[part] if part < len(here) else None
        elif isinstance(here, dict) and str(part) in map(str, here):
            yield str(part)
            here = here.get(part)
        elif missing and depth == len(location) - 1:
            yield str(part)
        entered = True


def _known_keys(path: Sequence[str], values: dict[str, Any]) -> set[str]:
    """The keys that the section at `path` knows, by the `kind` it has in `values`."""
    here: Any = values
    for part in path:
        here = here.get(part) if isinstance(here, dict) else None
    models = _models_at(path, values)
    return set(_model_of(models, here).model_fields) if models else set()


def _models_at(path: Sequence[str], values: dict[str, Any]) -> list[type[BaseModel]]:
    """The models of the sections that may stand at `path`."""
    models: list[type[BaseModel]] = [Recipe]
    here: Any = values
    for part in path:
        annotation = _model_of(models, here).model_fields[part].annotation
        choices = get_args(annotation) or (annotation,)
        models = [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]
        here = here.get(part) if isinstance(here, dict) else None
        if not models:
            return []
    return models


def _model_of(models: Sequence[type[BaseModel]], section: Any) -> type[BaseModel]:
    """The model of a section's `kind`, else the first."""
    kind = section.get("kind") if isinstance(section, dict) else None
    return next(
        (m for m in models if "kind" in m.model_fields and m.model_fields["kind"].default == kind),
        models[0],
    )


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as resolved, as YAML."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
