"""Options that several commands have; cyclopts shows the fields of each class as options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from geotune.errors import RecipeError
from geotune.utils.precision import PredictionPrecision

Device = Literal["auto", "cpu", "gpu", "mps"]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where the parts of a run's model are.

    Parameters
    ----------
    weights
        Weights of the backbone, if they moved since the training.
    backbone
        Name of a backbone that is a Python file of yours; confirms that its code may run.
    method
        Method that is a Python file of yours (method.kind); confirms that its code may run.
    """

    weights: Path | None = None
    backbone: str | None = None
    method: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SceneFiles:
    """How scenes are read.

    Parameters
    ----------
    bands
        Band names in file order, if the files do not contain them.
    nodata
        Nodata value, if the files do not contain it.
    quality
        Cloud or quality masks, a pattern such as masks/{stem}.tif; pixels flagged by
        data.quality of the run's recipe become nodata.
    """

    bands: list[str] | None = None
    nodata: float | None = None
    quality: str | None = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class MapContent:
    """How scenes are predicted, and what is written.

    Parameters
    ----------
    window
        Window side in pixels; by default as in training.
    overlap
        Share of a window that its neighbour covers too, for maps and objects.
    batch_size
        Windows at once.
    precision
        bf16-mixed multiplies in bfloat16: faster on GPUs and CPUs that have it; results differ
        slightly from machine to machine.
    ensemble
        A further run of the same task, classes and bands, whose predictions are averaged
        with those of RUN; repeat it for more.
    tta
        Test-time augmentation: average each window over 4 (flips) or all 8 (d4) orientations,
        which takes as many times longer.
    probabilities
        Also write a GeoTIFF of class probabilities.
    uncertainty
        Also write a GeoTIFF (or columns) of the uncertainty: the entropy of the
        classes and, with --ensemble or --tta, how much the predictions disagree; for numbers
        their standard deviation.
    novelty
        Also write a GeoTIFF (or columns) of how far the features of each window are from
        those of the training, as the share of validation windows that are nearer. Runs of
        older versions need geotune finish RUN first.
    polygons
        Also write the polygons of a class map, with their mean probability.
    min_area
        Smallest polygon, such as "50 m2" or "12 px".
    simplify
        Tolerance to simplify the outlines of polygons, such as "2 m" or "1 px".
    right_angles
        Give the outlines of polygons right angles, as those of buildings.
    threshold
        Probability from which pixels of a class map get a class: CLASS=NUMBER, or
        CLASS=auto for the best one in validation; without CLASS= for the rarest class. For
        several classes repeat it, or ship=0.2,wake=auto: a pixel gets the class whose
        probability is the largest multiple of its threshold. By default every pixel gets its
        most likely class.
    score
        Minimum score of objects; by default the score with the best F1 in validation.
    qgis
        Also write a QGIS style beside each file, and a QGIS project of each scene.
    """

    window: int | None = None
    overlap: float = 0.5
    batch_size: int = 8
    precision: PredictionPrecision = "32-true"
    ensemble: list[Path] | None = None
    tta: Literal["none", "flips", "d4"] = "none"
    probabilities: Annotated[bool, Parameter(negative="")] = False
    uncertainty: Annotated[bool, Parameter(negative="")] = False
    novelty: Annotated[bool, Parameter(negative="")] = False
    polygons: bool = True
    min_area: str | None = None
    simplify: str | None = None
    right_angles: Annotated[bool, Parameter(negative="")] = False
    threshold: list[str] | None = None
    score: float | None = None
    qgis: bool = True

    @property
    def keywords(self) -> dict[str, Any]:
        """The arguments of `geotune.predict`."""
        threshold = None if self.threshold is None else ",".join(self.threshold)
        return {**vars(self), "ensemble": self.ensemble or (), "threshold": threshold}


def require_scenes(command: str, scenes: tuple[str, ...]) -> None:
    """Raise `RecipeError` if a command was given no scene."""
    if not scenes:
        raise RecipeError(
            f"{command}: no scene is given; name at least one GeoTIFF", code="option-invalid"
        )
