"""A suite: one YAML file that says which runs are compared, over what, and by which figure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from geotune.config.base import OptionsModel, Share
from geotune.config.loader import parse, read_values

Changes = dict[str, Any]
"""Values by a recipe's keys, such as `method.kind`."""

OURS = ("train.run", "train.seed", "data.fraction")
"""Keys that a suite sets itself."""

TAKEN = (
    "recipe", "seed", "fraction", "run", "status", "search", "error", "metrics", "regions", "val",
    "gap", "cost",
)  # fmt: skip
"""Names that no axis of a grid may have: those of every suite, and of a row's columns."""


class Entry(OptionsModel):
    """A recipe of the suite."""

    path: Path
    set: Changes = Field(default_factory=dict, description="changes to it in every run")
    metric: str | None = Field(None, description="what it is judged by; by default the task's")


class Baselines(OptionsModel):
    """What is compared beside what was asked for, unless it is switched off by name."""

    unet_from_scratch: bool = Field(
        True, description="a convolutional network with random weights, trained whole, and a UNet"
    )
    frozen: bool = Field(True, description="the frozen backbone with the same stem and decoder")


class Search(OptionsModel):
    """A search for one number of the recipe, for every method by itself, on the validation part."""

    key: str = "train.lr"
    low: PositiveFloat
    high: PositiveFloat
    trials: PositiveInt = Field(8, description="trainings, for each method on each recipe")
    epochs: PositiveInt | None = Field(None, description="of a trial; by default the recipe's")
    seed: int = Field(0, ge=0, description="of the search, and of the trials' trainings")

    @model_validator(mode="after")
    def _ordered(self) -> Search:
        if self.low >= self.high:
            raise ValueError(f"search: low {self.low:g} is not below high {self.high:g}")
        return self


class Compare(OptionsModel):
    """How differences are judged."""

    to: str | None = Field(
        None, description="the method to compare with; by default full, else the first"
    )
    over: list[str] = Field(
        default_factory=list,
        description="axes of the grid that repeat a comparison, such as the region that is held "
        "out: means, intervals and verdicts are over them, as over seeds",
    )
    margin: Share = Field(
        0.02, description="a loss of which share of its figure counts as none that matters"
    )
    level: float = Field(0.95, gt=0.5, lt=1, description="of the intervals")
    draws: PositiveInt = Field(1000, description="of seeds and windows, for the intervals")
    unit: Literal["window", "scene"] = Field(
        "window", description="what of the test part is drawn anew"
    )


class Published(OptionsModel):
    """Numbers of others, from a CSV, to stand beside ours."""

    file: Path
    source: str = Field(description="who measured them, as people should read it")
    header: PositiveInt = Field(
        1, description="lines of column names; a column's are joined by a slash"
    )
    method: str = Field(description="column that says which method a line is of")
    names: dict[str, str] = Field(
        default_factory=dict, description="our name of a method, by what stands in that column"
    )
    only: dict[str, str] = Field(
        default_factory=dict, description="lines to read: what stands in a column"
    )
    axes: dict[str, str] = Field(
        default_factory=dict,
        description="by axis of the grid, the column that says of which of its labels a line is",
    )
    values: dict[str, str] = Field(
        min_length=1, description="by recipe of the suite, the column with its figure"
    )
    spreads: dict[str, str] = Field(
        default_factory=dict, description="the column with its standard deviation"
    )
    scale: PositiveFloat = Field(1.0, description="what makes them ours: 0.01 for per cent")


def _entries(found: Any) -> Any:
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list):
        found = {Path(str(path)).stem: path for path in found}
    if isinstance(found, dict):
        return {k: {"path": v} if isinstance(v, str) else v for k, v in found.items()}
    return found


def _choices(found: Any) -> Any:
    """Lists of values as choices by label."""
    if not isinstance(found, dict):
        return found
    return {
        axis: {label_of(_plain(value)): {axis: value} for value in choices}
        if isinstance(choices, list)
        else choices
        for axis, choices in found.items()
    }


def _lists(found: Any) -> Any:
    """Single labels as lists of one."""
    if not isinstance(found, dict):
        return found
    return {axis: label if isinstance(label, list) else [label] for axis, label in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError(
            f"grid: {value!r} has no name; give choices by name: {{name: {{key: value}}}}"
        )
    return value


def label_of(value: Any) -> str:
    """The label that a list of a key's values gives to one of them."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Suite(OptionsModel):
    """The whole suite."""

    recipes: Annotated[dict[str, Entry], BeforeValidator(_entries)] = Field(
        min_length=1, description="one recipe or several, by name"
    )
    folder: Path | None = Field(None, description="by default runs/bench/<suite's name>")
    set: Changes = Field(default_factory=dict, description="changes to all recipes")
    grid: Annotated[dict[str, dict[str, Changes]], BeforeValidator(_choices)] = Field(
        default_factory=dict,
        description="what varies: a list of values of a key, or changes by a name of their own",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=list, description="shares of the training data"
    )
    exclude: list[Annotated[dict[str, list[Any]], BeforeValidator(_lists)]] = Field(
        default_factory=list,
        description="runs to leave out: labels of what varies, one or a list of an axis",
    )
    baselines: Baselines = Baselines()
    search: Search | None = None
    compare: Compare = Compare()
    published: list[Published] = Field(default_factory=list)
    workers: PositiveInt = Field(1, description="runs at a time")

    @model_validator(mode="after")
    def _fits(self) -> Suite:
        sets = [
            ("set", self.set),
            *((f"recipes.{name}.set", entry.set) for name, entry in self.recipes.items()),
            *(
                (f"grid.{axis}.{label}", changes)
                for axis, choices in self.grid.items()
                for label, changes in choices.items()
            ),
        ]
        for where, changes in sets:
            for key in changes:
                if key in OURS:
                    how = {
                        "train.run": "folder",
                        "train.seed": "seeds",
                        "data.fraction": "fractions",
                    }
                    raise ValueError(f"{where}: {key} is set by the suite itself; use {how[key]}:")
        for axis, choices in self.grid.items():
            if axis in TAKEN:
                raise ValueError(f"grid.{axis}: is a name that every suite has; choose another")
            if not choices:
                raise ValueError(f"grid.{axis}: is empty; give at least one choice")
        for name in self.compare.over:
            if name not in self.grid:
                raise ValueError(
                    f"compare.over: {name} is no axis of grid; {nearest(name, self.grid)}"
                )
        if self.search is not None and self.search.key in OURS:
            raise ValueError(f"search.key: {self.search.key} is set by the suite itself")
        for i, found in enumerate(self.published):
            for key, columns in (("values", found.values), ("spreads", found.spreads)):
                for name in columns:
                    if name not in self.recipes:
                        raise ValueError(
                            f"published.{i}.{key}.{name}: is no recipe of this suite; "
                            f"{nearest(name, self.recipes)}"
                        )
            for name in found.axes:
                if name not in self.grid:
                    raise ValueError(
                        f"published.{i}.axes.{name}: is no axis of grid; {nearest(name, self.grid)}"
                    )
                if name in self.compare.over:
                    raise ValueError(
                        f"published.{i}.axes.{name}: compare.over takes its choices together; "
                        "leave it out of one of them"
                    )
        return self


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not known: the nearest, or all there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"


def read_suite(path: Path) -> Suite:
    """Read a suite. Raises `RecipeError` that lists every fault with its full path."""
    return parse(Suite, read_values(path, "a suite", "recipes"), str(path))
