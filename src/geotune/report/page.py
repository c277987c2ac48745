"""A report as one HTML file that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

import math
import os
from importlib.resources import files
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geotune.data.checks.split_checks import format_metres
from geotune.errors import GeotuneError
from geotune.report import number_format as fmt
from geotune.report.context import Example, Report
from geotune.report.images import png
from geotune.report.plots import curves, has_class_curves
from geotune.report.split_names import PARTS, evaluated
from geotune.report.summary import summary
from geotune.report.tables import ratio, share_rows
from geotune.report.tasks.base import find_page


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path`; an older one stays whole until the new one is complete.

    Raises `GeotuneError` where the file cannot be written.
    """
    write_page(path, render(report))


def write_page(path: Path, text: str) -> None:
    """Write a page to `path`, whole or not at all. Raises `GeotuneError` where that cannot be."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise GeotuneError(
            f"{path}: the report cannot be written ({error.strerror}); "
            "expected a folder that exists and has room"
        ) from error


def new_environment(*rooms: str) -> Environment:
    """What renders pages: templates of this room and others, and the filters for numbers."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(room, ".") for room in (*rooms, "geotune.report")]),
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
        "part_name": lambda part: PARTS.get(part, part),
        "plain": Markup,
    }
    return environment


def page_style() -> Markup:
    """The style of all pages."""
    return Markup(files(__package__).joinpath("style.css").read_text("utf-8"))


def render(report: Report) -> str:
    """The report as HTML."""
    page = find_page(report.task)
    parts = evaluated(report)
    return (
        new_environment()
        .get_template("template.html.j2")
        .render(
            report=report,
            page=page,
            missing=math.nan,
            style=page_style(),
            summary=summary(report, page),
            judged=next(iter(parts), None),
            judged_parts=parts,
            part_names={part: PARTS.get(part, part) for part in (*PARTS, *report.data)},
            windows=[
                (title, [(example, _pictures(example)) for example in examples])
                for title, examples in (("Best", report.best), ("Worst", report.worst))
                if examples
            ],
            curves=[(curve, Markup(curve.svg)) for curve in curves(report, page)],
            class_curves=has_class_curves(report, page),
            shares={name: share_rows(report, part) for name, part in report.data.items()},
            trained_share=ratio(report.cost.trained_parameters, report.cost.total_parameters),
            **(page.context(report, parts) if parts else {}),
        )
    )


def _pictures(example: Example) -> list[tuple[str, str]]:
    return [(title, png(picture)) for title, picture in example.pictures.items()]
