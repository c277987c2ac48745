"""What is predicted and how, and which options apply to which kind of prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.errors import GeotuneError
from geotune.inference.further_formats import FeatureFormat
from geotune.inference.polygon_writer import PolygonOptions
from geotune.utils.precision import PredictionPrecision, check_prediction_precision

if TYPE_CHECKING:
    from geotune.inference.ensemble import Orientations


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """What is predicted, and how; see `geotune.predict`.

    Raises `GeotuneError` for an unknown precision.
    """

    window: int | None = None
    overlap: float = 0.5
    batch_size: int = 8
    precision: PredictionPrecision = "32-true"
    tta: Orientations = "none"
    probabilities: bool = False
    uncertainty: bool = False
    novelty: bool = False
    polygons: bool = True
    min_area: str | None = None
    simplify: str | None = None
    right_angles: bool = False
    threshold: float | str | Mapping[str, float | str] | None = None
    score: float | None = None
    formats: Sequence[FeatureFormat] = ()

    def __post_init__(self) -> None:
        check_prediction_precision(self.precision)

    @property
    def outlines(self) -> PolygonOptions:
        """Which polygons are written, and how."""
        return PolygonOptions(self.min_area, self.simplify, self.right_angles)


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """Where the parts of the models are; see `geotune.predict`."""

    ensemble: Sequence[Path | str] = ()
    weights: Path | str | None = None
    backbone: str | None = None
    method: str | None = None


def check_options(options: PredictOptions, kind: str, run: Path) -> None:
    """Raise `GeotuneError` for options that do not apply to this kind of prediction."""
    if options.probabilities and kind != "classes":
        raise GeotuneError(
            f"--probabilities: only for class maps, but {run} predicts {kind}; remove the option",
            code="option-not-applicable",
        )
    if options.uncertainty and kind == "objects":
        raise GeotuneError(
            f"--uncertainty: {run} predicts objects, whose scores tell how certain they are; with "
            "--tta or --ensemble a score is the mean over all predictions; remove --uncertainty",
            code="option-not-applicable",
        )
    _check_score(options.score, kind, run)
    _check_formats(options.formats, kind, options.polygons, run)
    outlines = options.outlines
    if kind != "classes" or not options.polygons:
        _refuse_polygon_options(outlines, run, kind)
    if kind != "classes" and options.threshold is not None:
        raise GeotuneError(
            f"--threshold: only for class maps, but {run} predicts {kind}; objects have --score",
            code="option-not-applicable",
        )


def _check_score(score: float | None, kind: str, run: Path) -> None:
    """Raise `GeotuneError` for a minimum score of what has none, or outside 0 to 1."""
    if score is not None and kind != "objects":
        raise GeotuneError(
            f"--score: only for objects, but {run} predicts {kind}; remove the option",
            code="option-not-applicable",
        )
    if score is not None and not 0 <= score <= 1:
        raise GeotuneError(f"--score: found {score:g}, expected 0 to 1", code="option-invalid")


def _check_formats(formats: Sequence[FeatureFormat], kind: str, polygons: bool, run: Path) -> None:
    """Raise `GeotuneError` for formats of features if there are none."""
    if formats and not (kind == "objects" or (kind == "classes" and polygons)):
        raise GeotuneError(
            f"--format {' '.join(formats)}: only for objects and polygons, but {run} "
            + ("is predicted without polygons" if kind == "classes" else f"predicts {kind}")
            + "; remove the option",
            code="option-not-applicable",
        )


def _refuse_polygon_options(options: PolygonOptions, run: Path, kind: str) -> None:
    """Raise `GeotuneError` if options of polygons are given, but none are written."""
    if options != PolygonOptions():
        raise GeotuneError(
            f"--min-area, --simplify, --right-angles: only for polygons of class maps, but {run} "
            + ("is predicted without polygons" if kind == "classes" else f"predicts {kind}")
            + "; remove them",
            code="option-not-applicable",
        )
