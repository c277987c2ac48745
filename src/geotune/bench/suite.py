"""Suites: YAML files that define the runs of a comparison and how they are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveFloat, PositiveInt, model_validator

from geotune.config.base import OptionsModel, Share
from geotune.config.loader import parse, read_values
from geotune.utils.text import suggest

Changes = dict[str, Any]
"""Values by recipe key, such as `method.kind`."""

Regions = Literal["all", "seen", "unseen"]

SUITE_KEYS = ("train.run", "train.seed", "data.fraction")
"""Recipe keys that the suite controls."""

RESERVED = (
    "recipe", "seed", "fraction", "run", "status", "search", "error", "metrics", "regions", "val",
    "gap", "cost", "code", "commit",
)  # fmt: skip
"""Reserved names for axes: those of every suite, and the columns of a row."""


class SuiteRecipe(OptionsModel):
    """A recipe of the suite."""

    path: Path
    set: Changes = Field(default_factory=dict, description="changes to this recipe in every run")
    choices: dict[str, dict[str, Changes]] = Field(
        default_factory=dict,
        description="changes to this recipe by axis and label of the grid, such as its folds",
    )
    metric: str | None = Field(
        default=None, description="the main metric; by default that of the task"
    )
    search_epochs: PositiveInt | None = Field(
        default=None, description="epochs of a trial of the search, instead of search.epochs"
    )


class Baselines(OptionsModel):
    """Baselines that are added to every comparison unless they are switched off."""

    unet_from_scratch: bool = Field(
        default=True,
        description="a UNet with a randomly initialised ResNet-18 encoder, fully trained",
    )
    frozen: bool = Field(
        default=True, description="the frozen backbone with the same stem and decoder"
    )
    knn: bool = Field(
        default=False, description="the nearest training cells or images by the frozen features"
    )
    logistic: bool = Field(
        default=False, description="logistic regression of the frozen features (scikit-learn)"
    )


class Search(OptionsModel):
    """A search for one number of the recipe, per method, on the validation split."""

    key: str = "train.lr"
    low: PositiveFloat | None = Field(
        default=None, description="the smallest value; a sampler proposes values from here to high"
    )
    high: PositiveFloat | None = None
    values: list[PositiveFloat] = Field(
        default_factory=list,
        description="the values to try, instead of low and high: the same for every method, which "
        "is fairer with few trials",
    )
    trials: PositiveInt = Field(
        default=8, description="training runs per method and recipe; with values, their number"
    )
    epochs: PositiveInt | None = Field(
        default=None, description="epochs of a trial; by default those of the recipe"
    )
    seed: int = Field(default=0, ge=0, description="seed of the search and of its trials")

    @model_validator(mode="after")
    def _check(self) -> Search:
        if self.values:
            if self.low is not None or self.high is not None:
                raise ValueError("search: values exclude low and high")
            if len(set(self.values)) < len(self.values):
                raise ValueError(f"search.values: one is repeated in {self.values}")
            if "trials" in self.model_fields_set and self.trials != len(self.values):
                raise ValueError(
                    f"search.trials: {self.trials}, but there are {len(self.values)} values; "
                    "remove search.trials"
                )
            object.__setattr__(self, "trials", len(self.values))  # options are immutable
        elif self.low is None or self.high is None:
            raise ValueError("search: needs low and high, or values")
        elif self.low >= self.high:
            raise ValueError(f"search: low {self.low:g} must be less than high {self.high:g}")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest value that can be tried."""
        if self.values:
            return min(self.values), max(self.values)
        assert self.low is not None and self.high is not None
        return self.low, self.high


class Compare(OptionsModel):
    """How methods are compared."""

    to: str | None = Field(
        default=None, description="the reference method; by default full, else the first"
    )
    over: list[str] = Field(
        default_factory=list,
        description="axes of the grid that are replicates, such as the held-out region: means, "
        "intervals and verdicts are over them, as over seeds",
    )
    folds: list[str] = Field(
        default_factory=list,
        description="axes of the grid whose choices are the folds of a cross-validation, each with "
        "other test scenes: the test windows of all folds are pooled",
    )
    primary: list[str] = Field(
        default_factory=list,
        description="methods whose comparison was planned; they share half of the error rate",
    )
    combine: list[str] = Field(
        default_factory=list,
        description="recipes over which differences are combined; by default all",
    )
    margin: Share = Field(
        default=0.02,
        description="the largest unimportant difference, as a share of the reference's metric",
    )
    level: float = Field(
        default=0.95,
        gt=0.5,
        lt=1,
        description="confidence level of all intervals of a table at once",
    )
    unit: Literal["auto", "scene"] = Field(
        default="auto",
        description="the independent unit of the test split; auto: groups of the split, and scenes "
        "that do not adjoin; scene: every scene",
    )
    chosen: dict[str, str] = Field(
        default_factory=dict,
        description="what was decided before the comparison, such as a method's defaults, and on "
        "which data; shown beside the searched values",
    )
    mixed_code: bool = Field(
        default=False, description="compare runs of different versions of geotune's code"
    )


class PublishedOptions(OptionsModel):
    """Published results from a CSV file, shown next to those of the suite."""

    file: Path
    source: str = Field(description="the publication, as shown to readers")
    header: PositiveInt = Field(
        default=1, description="number of header lines; names of a column are joined by a slash"
    )
    method: str = Field(description="the column with the method")
    names: dict[str, str] = Field(
        default_factory=dict, description="methods of the suite by the name in that column"
    )
    only: dict[str, str] = Field(
        default_factory=dict, description="filter: column to required value"
    )
    axes: dict[str, str] = Field(
        default_factory=dict, description="axis of the grid to the column with its labels"
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="axis of the grid to the only label it is compared with"
    )
    regions: Regions = Field(
        default="all",
        description="part of the test split that the numbers are of: all, or the regions with or "
        "without training scenes",
    )
    values: dict[str, str] = Field(
        min_length=1, description="recipe of the suite to the column with its metric"
    )
    spreads: dict[str, str] = Field(
        default_factory=dict, description="recipe to the column with its standard deviation"
    )
    scale: PositiveFloat = Field(
        default=1.0, description="factor for the numbers, such as 0.01 for per cent"
    )


class LeaderboardOptions(OptionsModel):
    """A submission to the leaderboard of GEO-Bench-2, written from the results."""

    datasets: dict[str, str] = Field(
        min_length=1, description="recipe of the suite to the leaderboard's name of its data set"
    )
    paper: str = Field(default="N/A", description="link to the paper")
    code: str = Field(default="N/A", description="link to the code")
    licence: str = Field(default="N/A", description="of the models")
    information: str = Field(default="N/A", description="about the submission")
    comments: str = Field(default="N/A", description="on new models")


def _parse_recipes(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    if isinstance(value, list):
        value = {Path(str(path)).stem: path for path in value}
    if isinstance(value, dict):
        return {k: {"path": v} if isinstance(v, str) else v for k, v in value.items()}
    return value


def _parse_grid(value: Any) -> Any:
    """Turn lists of values into choices by label."""
    if not isinstance(value, dict):
        return value
    return {
        axis: {label_of(_require_scalar(value)): {axis: value} for value in choices}
        if isinstance(choices, list)
        else choices
        for axis, choices in value.items()
    }


def _parse_exclude(value: Any) -> Any:
    """Turn single labels into lists."""
    if not isinstance(value, dict):
        return value
    return {axis: label if isinstance(label, list) else [label] for axis, label in value.items()}


def _require_scalar(value: Any) -> Any:
    if isinstance(value, dict | list):
        raise ValueError(f"grid: {value!r} needs a name; write {{name: {{key: value}}}}")
    return value


def label_of(value: Any) -> str:
    """The label of a value in a list of the grid."""
    return str(value).lower() if isinstance(value, bool) else str(value)


class Suite(OptionsModel):
    """A suite."""

    recipes: Annotated[dict[str, SuiteRecipe], BeforeValidator(_parse_recipes)] = Field(
        min_length=1, description="one or more recipes, by name"
    )
    folder: Path | None = Field(
        default=None, description="output folder; by default runs/bench/<name of the suite>"
    )
    set: Changes = Field(default_factory=dict, description="changes to all recipes")
    grid: Annotated[dict[str, dict[str, Changes]], BeforeValidator(_parse_grid)] = Field(
        default_factory=dict, description="axes: values of a key, or named sets of changes"
    )
    runs: Path | None = Field(
        default=None,
        description="CSV of the combinations to run, by default all; columns: recipe, the axes of "
        "the grid, and recipe keys with the values of each combination",
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(default=[0], min_length=1)
    fractions: list[Annotated[float, Field(gt=0, le=1)]] = Field(
        default_factory=list, description="fractions of the training data"
    )
    exclude: list[Annotated[dict[str, list[Any]], BeforeValidator(_parse_exclude)]] = Field(
        default_factory=list,
        description="runs to omit, by their labels; one label or a list per axis",
    )
    baselines: Baselines = Baselines()
    search: Search | None = None
    compare: Compare = Compare()
    published: list[PublishedOptions] = Field(default_factory=list)
    leaderboard: LeaderboardOptions | None = None
    workers: PositiveInt = Field(default=1, description="parallel runs")

    @model_validator(mode="after")
    def _check(self) -> Suite:
        sets = [
            ("set", self.set),
            *((f"recipes.{name}.set", entry.set) for name, entry in self.recipes.items()),
            *(
                (f"grid.{axis}.{label}", changes)
                for axis, choices in self.grid.items()
                for label, changes in choices.items()
            ),
            *(
                (f"recipes.{name}.choices.{axis}.{label}", changes)
                for name, entry in self.recipes.items()
                for axis, choices in entry.choices.items()
                for label, changes in choices.items()
            ),
        ]
        for location, changes in sets:
            for key in changes:
                if key in SUITE_KEYS:
                    suite_key = {
                        "train.run": "folder",
                        "train.seed": "seeds",
                        "data.fraction": "fractions",
                    }
                    raise ValueError(
                        f"{location}: {key} is set by the suite; use {suite_key[key]}:"
                    )
        for axis, choices in self.grid.items():
            if axis in RESERVED:
                raise ValueError(f"grid.{axis}: reserved name; choose another")
            if not choices:
                raise ValueError(f"grid.{axis}: empty; expected one or more choices")
        for name, entry in self.recipes.items():
            for axis, choices in entry.choices.items():
                if axis not in self.grid:
                    raise ValueError(
                        f"recipes.{name}.choices: {axis} is not an axis of grid; "
                        f"{suggest(axis, self.grid)}"
                    )
                for label in choices:
                    if label not in self.grid[axis]:
                        raise ValueError(
                            f"recipes.{name}.choices.{axis}: {label} is not a choice of grid."
                            f"{axis}; {suggest(label, self.grid[axis])}"
                        )
        for key, names in (("over", self.compare.over), ("folds", self.compare.folds)):
            for name in names:
                if name not in self.grid:
                    raise ValueError(
                        f"compare.{key}: {name} is not an axis of grid; {suggest(name, self.grid)}"
                    )
        for name in self.compare.combine:
            if name not in self.recipes:
                raise ValueError(
                    f"compare.combine: {name} is not a recipe of this suite; "
                    f"{suggest(name, self.recipes)}"
                )
        if self.compare.over and self.compare.folds:
            raise ValueError("compare: over and folds exclude each other; remove one of them")
        used = [name for name, on in self.baselines if on]
        if self.runs is not None and used:
            off = ", ".join(f"{name}: false" for name in used)
            raise ValueError(f"baselines: runs lists every run; use baselines: {{{off}}}")
        if self.search is not None and self.search.key in SUITE_KEYS:
            raise ValueError(f"search.key: {self.search.key} is set by the suite")
        for name, entry in self.recipes.items():
            if entry.search_epochs is not None and self.search is None:
                raise ValueError(f"recipes.{name}.search_epochs: the suite has no search")
        for name in self.leaderboard.datasets if self.leaderboard else ():
            if name not in self.recipes:
                raise ValueError(
                    f"leaderboard.datasets.{name}: not a recipe of this suite; "
                    f"{suggest(name, self.recipes)}"
                )
        for i, published in enumerate(self.published):
            for key, columns in (("values", published.values), ("spreads", published.spreads)):
                for name in columns:
                    if name not in self.recipes:
                        raise ValueError(
                            f"published.{i}.{key}.{name}: not a recipe of this suite; "
                            f"{suggest(name, self.recipes)}"
                        )
            for key, name in [
                *(("axes", name) for name in published.axes),
                *(("labels", name) for name in published.labels),
            ]:
                if name not in self.grid:
                    raise ValueError(
                        f"published.{i}.{key}.{name}: not an axis of grid; "
                        f"{suggest(name, self.grid)}"
                    )
                if name in (*self.compare.over, *self.compare.folds):
                    raise ValueError(
                        f"published.{i}.{key}.{name}: compare averages over this axis; "
                        "remove it from one of them"
                    )
        return self

    def searches(self) -> dict[str, Search]:
        """The search for each recipe; empty if the suite has none."""
        if self.search is None:
            return {}
        return {
            name: self.search.model_copy(update={"epochs": entry.search_epochs})
            if entry.search_epochs is not None
            else self.search
            for name, entry in self.recipes.items()
        }


def read_suite(path: Path) -> Suite:
    """Read a suite. Raises `RecipeError` that lists every invalid key."""
    return parse(Suite, read_values(path, "a suite", "recipes"), str(path))
