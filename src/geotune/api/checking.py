"""`geotune check`: read a recipe's data once, and say all that is wrong with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.config import Recipe
from geotune.data.checks.scanned import ScannedData
from geotune.data.datamodule import DataModule
from geotune.data.issues import SEVERITIES, ErrorCollector, Issue
from geotune.errors import GeotuneError
from geotune.factory.build_data import check_data, examine_data, make_datasets
from geotune.types import BandStatistics
from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class Checked:
    """What a check came to.

    Attributes:
        findings: errors first.
        scenes: how many were read to their end.
        page: the HTML with all of it.
        class_counts: what is labelled of each class, by part.
        distances_m: between the nearest scenes of two parts, `train-test`.
    """

    findings: list[Issue]
    scenes: int
    page: Path
    class_counts: dict[str, dict[str, int]]
    distances_m: dict[str, float]

    def count(self, severity: str) -> int:
        """How many findings there are of a severity."""
        return sum(one.severity == severity for one in self.findings)


def check_recipe(
    recipe: Recipe,
    page: Path,
    *,
    title: str,
    say: Callable[[str], None] = lambda text: None,
    progress: Callable[[int, int], None] | None = None,
) -> Checked:
    """Read a recipe's data once and find all that is wrong with it, file by file.

    Goes on after a fault; what it calls an error, a training refuses in the same words. Writes
    `page`. `say` gets a line at a time for the user, `progress` the scenes read and how many there
    are. Raises `GeotuneError` only where the page cannot be written.
    """
    faults = ErrorCollector(keep=True)
    say("reading the data")
    examined: ScannedData | None = None
    found: list[Issue] = []
    try:
        examined = examine_data(recipe, faults, progress)
        found += check_data(recipe, examined)
        data = make_datasets(recipe, examined)
    except GeotuneError as error:  # what concerns all files, so that there is nothing to go on with
        found.append(Issue("error", "data", str(error)))
        seen = None
    else:
        say("comparing it with the backbone's pretraining")
        seen, told = _against_pretraining(recipe, data)
        found += told
    unique = {one.text: one for one in (*faults.found, *found)}.values()
    findings = sorted(unique, key=lambda one: SEVERITIES.index(one.severity))
    _write_page(page, title, findings, examined, seen)
    return Checked(
        findings,
        len(examined.scenes) if examined else 0,
        page,
        _class_counts(examined) if examined else {},
        examined.distances_m if examined else {},
    )


def _against_pretraining(
    recipe: Recipe, data: DataModule
) -> tuple[BandStatistics | None, list[Issue]]:
    """What the backbone was pretrained on, and what is unlike it; no weights are read."""
    from geotune.factory.build_model import resolve_recipe
    from geotune.factory.fake_model import (
        FakeModelBuilder,  # imports torch and the backbone's provider
    )
    from geotune.normalization import choose_normalization

    try:
        completed, _ = resolve_recipe(recipe, data)
        backbone = FakeModelBuilder(completed, data.statistics.bands).backbone
        _, notes = choose_normalization(backbone, data.statistics, recipe.data.normalize)
    except GeotuneError as error:
        return None, [Issue("error", "backbone", str(error))]
    return backbone.pretraining, [Issue("warning", "units", note) for note in notes]


def _class_counts(examined: ScannedData) -> dict[str, dict[str, int]]:
    classes = examined.parts["train"][0].labels.classes
    return {
        part: dict(zip(classes, counts, strict=True))
        for part in examined.parts
        if (counts := examined.class_counts(part))
    }


def _write_page(
    page: Path,
    title: str,
    findings: list[Issue],
    examined: ScannedData | None,
    pretraining: BandStatistics | None,
) -> None:
    from geotune.report.data_check_page import Content, Histogram, render_check

    histograms = []
    if examined is not None:
        bands = examined.parts["train"][0].raster.bands
        usual = {}
        if pretraining is not None:
            moments = zip(pretraining.mean, pretraining.std, strict=True)
            usual = dict(zip(pretraining.bands, moments, strict=True))
        for i, band in enumerate(bands):
            values = {
                part: [scan.sample[i] for scan in scans]
                for part, scans in examined.scans.items()
                if scans
            }
            histograms.append(Histogram(band, values, usual.get(band)))
    content = Content(
        title=title,
        findings=[(one.severity, one.check, one.text) for one in findings],
        unit=examined.parts["train"][0].labels.label_unit if examined else "pixel",
        parts={part: len(members) for part, members in examined.parts.items()} if examined else {},
        class_counts=_class_counts(examined) if examined else {},
        distances_m=examined.distances_m if examined else {},
        histograms=histograms,
    )
    write_atomically(page, render_check(content).encode())


def check_values(checked: Checked) -> dict[str, Any]:
    """A check as plain values, for JSON."""
    return {
        "errors": checked.count("error"),
        "warnings": checked.count("warning"),
        "scenes": checked.scenes,
        "findings": [vars(one) for one in checked.findings],
        "class_counts": checked.class_counts,
        "distances_m": checked.distances_m,
        "page": str(checked.page),
    }
