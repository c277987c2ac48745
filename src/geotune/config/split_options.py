"""Sections of the ways to split data into parts."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from geotune.config.base import OptionsModel, Share
from geotune.config.units import width


class _Split(OptionsModel):
    """What every split has."""

    allow_overlap: bool = Field(
        False, description="parts may share ground or pixels, which is an error otherwise"
    )


class _Grouped(_Split):
    """Splits that know groups of scenes, by which `geotune test` tells its metrics."""

    by: str = Field(
        "scene",
        description="what a group is: `scene`, a column of the table that lists the scenes, or a "
        "regular expression whose first group is found in the scene's name",
    )


class _Drawn(_Split):
    """Shares drawn at random."""

    val: Share = 0.2
    test: Share = 0.2
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.val + self.test >= 1:
            raise ValueError(
                f"data.split: val {self.val} and test {self.test} leave nothing to train on"
            )
        return self


class ListSplit(_Grouped):
    """Scenes or chips of each part by name."""

    kind: Literal["list"] = "list"
    train: list[str] | Path
    val: list[str] | Path
    test: list[str] | Path = Field(default_factory=list)


class RandomSplit(_Drawn, _Grouped):
    """Whole scenes or chips, or with `by` whole groups, drawn at random into the parts."""

    kind: Literal["random"] = "random"


class GroupSplit(_Grouped):
    """Groups held out by name; what is not named trains."""

    kind: Literal["group"] = "group"
    val: list[str]
    test: list[str] = Field(default_factory=list)


class FoldSplit(_Grouped):
    """One fold of groups tests, the next one validates, the others train."""

    kind: Literal["folds"] = "folds"
    fold: PositiveInt | str = Field(
        description="which fold tests: its number from 1 on, or a group in it"
    )
    folds: int | None = Field(
        None, ge=2, description="into how many the groups are put; by default each group is one"
    )
    val: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="in place of the next fold this share of the scenes that are left validates",
    )
    seed: int = Field(0, ge=0, description="of that draw")


class BlockSplit(_Drawn):
    """Blocks of ground drawn at random into the parts, with a buffer between them."""

    kind: Literal["blocks"] = "blocks"
    side: Annotated[str, width("data.split")] = Field(
        description="of a block, such as 2000 m or 512 px"
    )
    buffer: Annotated[str, width("data.split", zero=True)] = Field(
        "0 m", description="least distance between windows of two blocks"
    )


class DateSplit(_Split):
    """The past trains, the future tests."""

    kind: Literal["date"] = "date"
    val: date = Field(description="from this day on scenes validate; those before it train")
    test: date | None = Field(None, description="from this day on they test")
    by: str | None = Field(
        None,
        description="a column, or a regular expression whose first group is the date in the "
        "scene's name; by default what the files say",
    )

    @model_validator(mode="after")
    def _in_order(self) -> DateSplit:
        if self.test is not None and self.test <= self.val:
            raise ValueError(
                f"data.split.test: found {self.test}, expected a day after val ({self.val})"
            )
        return self


class ColumnSplit(_Grouped):
    """Each image in the part that the labels' column `split` names: train, val or test."""

    kind: Literal["column"] = "column"


class PublishedSplit(_Split):
    """The parts that were published with a named data set."""

    kind: Literal["published"] = "published"
    name: str | None = Field(None, description="by default the first of the data set's")


OwnSplit = ListSplit | RandomSplit | GroupSplit | FoldSplit | BlockSplit | DateSplit | ColumnSplit
Split = Annotated[OwnSplit, Field(discriminator="kind")]
