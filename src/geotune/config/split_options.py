"""Options of the splits: the recipe's `data.split` section and the splitters' arguments."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from geotune.config.base import OptionsModel, Share, invalid
from geotune.config.units import Length, PositiveLength

NamesOrFile = Annotated[
    list[str] | Path,
    Field(description="names of scenes or chips, or a text file with a name per line"),
]


class SplitOptions(OptionsModel):
    """Options that every split has."""

    allow_overlap: bool = Field(
        default=False, description="splits may share ground or pixels; an error otherwise"
    )


class GroupedSplitOptions(SplitOptions):
    """Splits by groups of scenes, for which `geotune test` also reports metrics."""

    by: str = Field(
        default="scene",
        description="what a group is: `scene`, a column of the table of scenes, or a regular "
        "expression whose first group is matched in the scene's name",
    )


class DrawnSplitOptions(SplitOptions):
    """Splits drawn at random."""

    val: Share = Field(default=0.2, description="fraction for validation")
    test: Share = Field(default=0.2, description="fraction for testing")
    seed: int = Field(default=0, ge=0, description="of the random number generator")

    @model_validator(mode="after")
    def _leaves_training_data(self) -> Self:
        if self.val + self.test >= 1:
            raise invalid(
                "data.split", f"val {self.val} and test {self.test} leave nothing to train on"
            )
        return self


class ListSplitOptions(GroupedSplitOptions):
    """Scenes or chips of each split by name."""

    kind: Literal["list"] = "list"
    train: NamesOrFile
    val: NamesOrFile
    test: NamesOrFile = Field(default_factory=list)


class RandomSplitOptions(DrawnSplitOptions, GroupedSplitOptions):
    """Scenes or chips, or with `by` whole groups, drawn at random."""

    kind: Literal["random"] = "random"


class GroupSplitOptions(GroupedSplitOptions):
    """Named groups for validation and testing; all others train."""

    kind: Literal["group"] = "group"
    val: list[str] = Field(description="groups for validation")
    test: list[str] = Field(default_factory=list, description="groups for testing")


class FoldSplitOptions(GroupedSplitOptions):
    """Cross-validation: one fold tests, the next one validates, the others train."""

    kind: Literal["folds"] = "folds"
    fold: PositiveInt | str = Field(
        description="fold for testing: its number, from 1, or a group in it"
    )
    folds: int | None = Field(
        default=None, ge=2, description="number of folds; by default each group is a fold"
    )
    val: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="fraction of the remaining scenes for validation, instead of the next fold",
    )
    seed: int = Field(default=0, ge=0, description="of the assignment to folds")


class BlockSplitOptions(DrawnSplitOptions):
    """Spatial blocks drawn at random, with a buffer between the splits."""

    kind: Literal["blocks"] = "blocks"
    side: PositiveLength = Field(description="side of a block, such as 2000 m or 512 px")
    buffer: Length = Field(
        default="0 m", description="minimum distance between windows of two blocks"
    )


class DateSplitOptions(SplitOptions):
    """Temporal split: train on earlier dates, test on later ones."""

    kind: Literal["date"] = "date"
    val: date = Field(description="first day of validation; earlier scenes train")
    test: date | None = Field(default=None, description="first day of testing")
    by: str | None = Field(
        default=None,
        description="a column, or a regular expression whose first group is the date in the "
        "scene's name; by default the date in the files",
    )

    @model_validator(mode="after")
    def _in_order(self) -> DateSplitOptions:
        if self.test is not None and self.test <= self.val:
            raise invalid(
                "data.split.test", f"found {self.test}, expected a day after val ({self.val})"
            )
        return self


class ColumnSplitOptions(GroupedSplitOptions):
    """The label table's column `split` assigns each image: train, val or test."""

    kind: Literal["column"] = "column"


class PublishedSplitOptions(SplitOptions):
    """The split that was published with a named data set."""

    kind: Literal["published"] = "published"
    name: str | None = Field(default=None, description="which one; by default the data set's first")


OwnSplitSection = (
    ListSplitOptions
    | RandomSplitOptions
    | GroupSplitOptions
    | FoldSplitOptions
    | BlockSplitOptions
    | DateSplitOptions
    | ColumnSplitOptions
)
SPLIT = "how the data are split into training, validation and test; see geotune list split"
SplitSection = Annotated[OwnSplitSection, Field(discriminator="kind", description=SPLIT)]
