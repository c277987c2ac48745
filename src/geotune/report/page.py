"""A report as one HTML file that needs nothing else: no network, no scripts, no other file."""

from __future__ import annotations

import math
import os
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from geotune.types import GeotuneError

from . import format as fmt
from .content import Report
from .figures import curves, has_class_curves
from .pictures import panels
from .summary import PARTS, judged_part, summary
from .tables import class_rows, confusion_rows, ratio, share_rows


def write_report(path: Path, report: Report) -> None:
    """Write the report to `path`; an older one stays whole until the new one is complete.

    Raises `GeotuneError` where the file cannot be written.
    """
    text = render(report)
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


def render(report: Report) -> str:
    """The report as HTML."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "score": fmt.score,
        "percent": fmt.percent,
        "count": fmt.count,
        "rounded": fmt.rounded,
        "size": fmt.size,
        "duration": fmt.duration,
        "listing": fmt.listing,
    }
    here = files(__package__)
    template = environment.from_string(here.joinpath("template.html.j2").read_text("utf-8"))
    style = here.joinpath("style.css").read_text("utf-8")
    evaluated = [part for part in ("test", "val") if class_rows(report, part)]
    return template.render(
        report=report,
        missing=math.nan,
        style=Markup(style),
        summary=summary(report),
        judged=judged_part(report),
        part_names={part: PARTS.get(part, part) for part in (*PARTS, *report.data)},
        class_tables={part: class_rows(report, part) for part in evaluated},
        confusions={
            part: confusion_rows(report.confusion[part])
            for part in evaluated
            if part in report.confusion
        },
        windows=[
            (title, [panels(example, report.colors) for example in examples])
            for title, examples in (("Best", report.best), ("Worst", report.worst))
            if examples
        ],
        curves=[(curve, Markup(curve.svg)) for curve in curves(report)],
        class_curves=has_class_curves(report),
        shares={name: share_rows(report, part) for name, part in report.data.items()},
        trained_share=ratio(report.cost.trained_parameters, report.cost.total_parameters),
    )
