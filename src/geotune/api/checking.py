"""`geotune check`: read the data of a recipe once and report every problem."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.api.recipes import (
    OnMessage,
    RecipeLike,
    as_recipe,
    ignore_message,
    recipe_name,
)
from geotune.config import Recipe
from geotune.data.checks.scan_cache import ScanCache, default_path
from geotune.data.checks.scanned import ScannedData
from geotune.data.datamodule import DataModule
from geotune.data.issues import SEVERITIES, CollectedError, ErrorCollector, Issue
from geotune.errors import GeotuneError
from geotune.factory.build_data import check_data, make_datasets, scan_data
from geotune.types import BandStatistics
from geotune.utils.progress import OnProgress, ignore_progress
from geotune.utils.text import pluralize

CONSEQUENCES = (
    "band-empty",
    "class-empty",
    "labels-outside",
    "images-empty",
    "split-empty",
    "split-groups",
    "split-unassigned",
    "split-unlabelled",
)
"""Errors about what is left if scenes are unusable, which is not what is wrong with the data."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of `check`.

    Attributes:
        issues: errors first.
        scenes: number of scenes that were read completely.
        page: the HTML report.
        class_counts: labelled pixels, objects or images of each class, by split.
        distances_m: between the closest scenes of two splits, by `train-test` and so on.
    """

    issues: list[Issue]
    scenes: int
    page: Path
    class_counts: dict[str, dict[str, int]]
    distances_m: dict[str, float]

    def count(self, severity: str) -> int:
        """Number of issues of a severity."""
        return sum(issue.severity == severity for issue in self.issues)


def check(
    recipe: RecipeLike,
    overrides: Sequence[str] = (),
    *,
    page: Path | str | None = None,
    reread: bool = False,
    on_message: OnMessage = ignore_message,
    on_progress: OnProgress = ignore_progress,
) -> CheckResult:
    """Read every file of a recipe's data once and report all problems.

    The check continues after an error. `fit` rejects what is an error here, with the same message.

    Args:
        recipe: a YAML file, a dict of sections, or a parsed recipe.
        overrides: changes such as `data.split.fold=2`.
        page: HTML file to write; by default `checks/<recipe name>.html`.
        reread: also read files that did not change since they were last read.
        on_message: receives progress messages.
        on_progress: receives the progress of each phase.

    Raises `GeotuneError` for an invalid recipe and if the page cannot be written.
    """
    title = recipe_name(recipe)
    page = Path("checks") / f"{title}.html" if page is None else Path(page)
    recipe = as_recipe(recipe, overrides, on_message)
    on_message("reading the data")
    issues, scanned, data = find_data_issues(recipe, on_progress, reread=reread)
    pretraining = None
    if data is not None:
        on_message("comparing the data with the pretraining of the backbone")
        pretraining, pretraining_issues = _compare_with_pretraining(recipe, data)
        issues += pretraining_issues
    unique = {issue.text: issue for issue in issues}.values()
    issues = sorted(unique, key=lambda issue: SEVERITIES.index(issue.severity))
    on_message("drawing the page")
    points = getattr(recipe.task, "boxes", None) == "points"
    _write_page(page, title, issues, scanned, pretraining, points=points)
    return CheckResult(
        issues,
        len(scanned.scenes) if scanned else 0,
        page,
        _class_counts(scanned) if scanned else {},
        scanned.distances_m if scanned else {},
    )


def find_data_issues(
    recipe: Recipe, on_progress: OnProgress = ignore_progress, *, reread: bool = False
) -> tuple[list[Issue], ScannedData | None, DataModule | None]:
    """Read every file of a recipe's data.

    Returns the issues, what was read, and the datasets; None for what an error prevented.
    """
    errors = ErrorCollector(keep=True)
    issues: list[Issue] = []
    scanned: ScannedData | None = None
    data: DataModule | None = None
    try:
        with closing(ScanCache(default_path(), reread=reread)) as store:
            scanned = scan_data(recipe, errors, on_progress, store)
        if store.hits:
            text = (
                f"{store.hits} of {pluralize(len(scanned.scenes), 'scene')} not read again: files, "
                "sizes and modification times are as before; geotune check --reread reads them"
            )
            issues.append(Issue("note", "files", text))
        issues += check_data(recipe, scanned)
        data = make_datasets(recipe, scanned)
    except CollectedError:  # no scene is left
        pass
    except GeotuneError as error:  # concerns all files: nothing is left to check
        issues.append(Issue("error", "data", str(error), code=error.code))
    issues = [*errors.issues, *issues]
    if errors.scenes:
        issues = [issue for issue in issues if issue.code not in CONSEQUENCES]
    return issues, scanned, data


def _compare_with_pretraining(
    recipe: Recipe, data: DataModule
) -> tuple[BandStatistics | None, list[Issue]]:
    """Pretraining statistics of the backbone and the differences to them; reads no weights."""
    from geotune.factory.build_model import resolve_recipe
    from geotune.factory.fake_model import (
        FakeModelBuilder,  # imports torch and the backbone's provider
    )
    from geotune.normalization import choose_normalization

    try:
        completed, _ = resolve_recipe(recipe, data)
        backbone = FakeModelBuilder(completed, data.statistics.bands).backbone
        _, notes = choose_normalization(
            backbone, data.statistics, recipe.data.normalize, recipe.data.nodata_fill
        )
    except GeotuneError as error:
        return None, [Issue("error", "backbone", str(error))]
    return backbone.pretraining, [Issue("warning", "units", note) for note in notes]


def _class_counts(scanned: ScannedData) -> dict[str, dict[str, int]]:
    classes = scanned.splits["train"][0].labels.classes
    return {
        split: dict(zip(classes, counts, strict=True))
        for split in scanned.splits
        if (counts := scanned.class_counts(split))
    }


def _write_page(
    page: Path,
    title: str,
    issues: list[Issue],
    scanned: ScannedData | None,
    pretraining: BandStatistics | None,
    *,
    points: bool,
) -> None:
    from geotune.report.data_check_page import CheckContext, Histogram, render_check
    from geotune.report.page import write_page
    from geotune.report.scene_pictures import MAX_VALUES, picture_scenes
    from geotune.report.scene_table import scene_table
    from geotune.utils.rgb_bands import shown_bands

    histograms: list[Histogram] = []
    shown: dict[str, Any] = {}
    if scanned is not None:
        names = scanned.scenes[0][1].raster.bands
        budget = MAX_VALUES // len(scanned.splits)
        shown = {
            "shown_bands": [names[i] for i in dict.fromkeys(shown_bands(names))],
            "pictures": {
                split: picture_scenes(scenes, scanned.scans[split], points=points, budget=budget)
                for split, scenes in scanned.splits.items()
            },
            "scenes": scene_table(scanned.scenes),
        }
        bands = scanned.splits["train"][0].raster.bands
        mean_std = {}
        if pretraining is not None:
            moments = zip(pretraining.mean, pretraining.std, strict=True)
            mean_std = dict(zip(pretraining.bands, moments, strict=True))
        for i, band in enumerate(bands):
            values = {
                split: [scan.sampled_pixels[i] for scan in scans]
                for split, scans in scanned.scans.items()
                if scans
            }
            histograms.append(Histogram(band, values, mean_std.get(band)))
    content = CheckContext(
        title=title,
        issues=[(issue.severity, issue.check, issue.text) for issue in issues],
        unit=scanned.splits["train"][0].labels.label_unit if scanned else "pixel",
        splits={split: len(scenes) for split, scenes in scanned.splits.items()} if scanned else {},
        class_counts=_class_counts(scanned) if scanned else {},
        distances_m=scanned.distances_m if scanned else {},
        histograms=histograms,
        **shown,
    )
    write_page(page, render_check(content))


def check_to_dict(result: CheckResult) -> dict[str, Any]:
    """A check as plain values, for JSON."""
    return {
        "errors": result.count("error"),
        "warnings": result.count("warning"),
        "scenes": result.scenes,
        "findings": [vars(issue) for issue in result.issues],
        "class_counts": result.class_counts,
        "distances_m": result.distances_m,
        "page": str(result.page),
    }
