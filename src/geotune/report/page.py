"""A report as one self-contained HTML file, without scripts or network access."""

from __future__ import annotations

import math
from importlib.resources import files
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geotune.data.checks.split_checks import format_metres
from geotune.errors import GeotuneError
from geotune.report import number_format as fmt
from geotune.report.context import SPLIT_NAMES, Example, Report, evaluated_splits
from geotune.report.images import png
from geotune.report.plots import curves, has_class_curves
from geotune.report.summary import summary
from geotune.report.tables import ratio, share_rows
from geotune.report.tasks.base import find_page
from geotune.utils.atomic import write_atomically
from geotune.utils.headline import lowest_class


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path`, replacing an older one atomically.

    Raises `GeotuneError` if the file cannot be written.
    """
    write_page(path, render(report))


def write_page(path: Path, text: str) -> None:
    """Write a page to `path` atomically. Raises `GeotuneError` if it cannot be written."""
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise GeotuneError(
            f"{path}: cannot write the report ({error.strerror}); "
            "check that its folder is writable and has free space",
            code="output-not-writable",
            file=path,
        ) from error


def new_environment(*packages: str) -> Environment:
    """Create a Jinja environment with the templates of this package and others."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(p, ".") for p in (*packages, "geotune.report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": fmt.score,
        "percent": fmt.percent,
        "count": fmt.count,
        "rounded": fmt.rounded,
        "size": fmt.size,
        "duration": fmt.duration,
        "listing": fmt.listing,
        "number": fmt.number,
        "distance": format_metres,
        "region_score": lambda value, lower: fmt.number(value) if lower else fmt.score(value),
        "split_name": lambda split: SPLIT_NAMES.get(split, split),
        "plain": Markup,
    }
    return environment


def page_style() -> Markup:
    """The style sheet of all pages."""
    return Markup(files(__package__).joinpath("style.css").read_text("utf-8"))


def render(report: Report) -> str:
    """Render the report as HTML."""
    page = find_page(report.task)
    splits = evaluated_splits(report)
    return (
        new_environment()
        .get_template("template.html.j2")
        .render(
            report=report,
            page=page,
            missing=math.nan,
            style=page_style(),
            summary=summary(report, page),
            main_split=next(iter(splits), None),
            lowest=lowest_class(report.metrics[splits[0]], page.main) if splits else None,
            evaluated_splits=splits,
            split_names={
                split: SPLIT_NAMES.get(split, split) for split in (*SPLIT_NAMES, *report.data)
            },
            windows=[
                (title, [(example, _pictures(example)) for example in examples])
                for title, examples in (("Best", report.best), ("Worst", report.worst))
                if examples
            ],
            curves=[(curve, Markup(curve.svg)) for curve in curves(report, page)],
            class_curves=has_class_curves(report, page),
            shares={name: share_rows(report, split) for name, split in report.data.items()},
            trained_share=ratio(report.cost.trained_parameters, report.cost.total_parameters),
            **(page.context(report, splits) if splits else {}),
        )
    )


def _pictures(example: Example) -> list[tuple[str, str]]:
    return [(title, png(picture)) for title, picture in example.pictures.items()]
