"""What a run came to, in plain sentences made from its numbers."""

from __future__ import annotations

import math

from . import format as fmt
from .content import Report
from .figures import series
from .tables import ClassRow, class_rows, ratio

PARTS = {"train": "training", "val": "validation", "test": "test"}

_RARE = 0.05
_ENOUGH_EPOCHS = 6


def judged_part(report: Report) -> str | None:
    """The part that the run is judged by: the test data, else the validation data."""
    return next((part for part in ("test", "val") if class_rows(report, part)), None)


def summary(report: Report) -> list[str]:
    """The sentences at the top of the page, each a paragraph."""
    said = [_what(report), *_result(report), *_overall(report), *_training(report), _cost(report)]
    return [sentence for sentence in said if sentence]


def _what(report: Report) -> str:
    classes = fmt.listing(list(report.classes), "or")
    text = (
        f"This model says for every pixel whether it is {classes}. "
        f"It is {report.backbone.name}, tuned by the method “{report.method}”"
    )
    train = report.data.get("train")
    return f"{text} on {_scenes(report, 'train', '')}." if train else f"{text}."


def _result(report: Report) -> list[str]:
    part = judged_part(report)
    if part is None:
        return []
    rows = class_rows(report, part)
    seen = [row for row in _of_interest(rows) if row.pixels]
    where = f"On {_scenes(report, part, 'held-out ')}"
    if part not in report.confusion or not seen:
        return []
    if len(seen) <= 3:
        said = [f"{where}, the model {'; it '.join(_found(row, len(rows)) for row in seen)}."]
    else:
        ranked = sorted(seen, key=lambda row: _or_zero(row.iou), reverse=True)
        said = [
            f"{where}, the model does best at {ranked[0].name}: it {_found(ranked[0], len(rows))}. "
            f"It does worst at {ranked[-1].name}: it {_found(ranked[-1], len(rows))}."
        ]
    unseen = [row.name for row in rows if not row.pixels]
    if unseen:
        said.append(
            f"The {PARTS[part]} data has no pixel labelled {fmt.listing(unseen, 'or')}: "
            "nothing can be said of that."
        )
    return said


def _found(row: ClassRow, class_count: int) -> str:
    if math.isnan(row.right):
        return f"marks nothing as {row.name}, and so misses all of it"
    text = f"finds {fmt.percent(row.found)} of the pixels labelled {row.name}"
    if class_count > 2 and row.confused_with and row.found < 0.9:
        text += f" (what it misses it mostly takes for {row.confused_with})"
    return f"{text}, and {fmt.percent(row.right)} of what it marks as {row.name} is right"


def _overall(report: Report) -> list[str]:
    part = judged_part(report)
    if part is None:
        return []
    miou = report.metrics.get(part, {}).get("miou", math.nan)
    if fmt.missing(miou):
        return []
    text = (
        f"The overlap of map and labels, averaged over the classes (mean IoU), is "
        f"{fmt.score(miou)}; 1 would be perfect."
    )
    rows = class_rows(report, part)
    common = max(rows, key=lambda row: row.pixels)
    if any(0 < row.share < _RARE for row in rows) and common.share > 1 - 2 * _RARE:
        text += (
            f" The share of right pixels says little here, for {common.name} alone covers "
            f"{fmt.percent(common.share)} of them."
        )
    val = report.metrics.get("val", {}).get("miou", math.nan)
    if part == "val" and report.best_epoch is not None:
        text += (
            " The same data chose which epoch was kept, so expect somewhat less on new "
            f"{report.unit}s; a test split would tell."
        )
    elif part == "test" and val - miou > 0.1:
        text += (
            f" On the validation data it was {fmt.score(val)}: how well it does differs "
            f"much from {report.unit} to {report.unit}."
        )
    return [text]


def _training(report: Report) -> list[str]:
    """A hint where the curves clearly give one."""
    epochs, scores = series(report.history, "val/miou")
    losses = series(report.history, "val/loss")[1]
    if len(scores) < _ENOUGH_EPOCHS:
        return []
    best = scores.index(max(scores))
    if best >= len(scores) - max(1, len(scores) // 10):
        return ["It was still getting better when training ended: more epochs may help."]
    if losses and losses[-1] > 1.25 * min(losses) and best < len(scores) * 2 / 3:
        return [
            f"After epoch {epochs[best]:g} it got no better on the validation data while it "
            "went on learning the training data by heart: more labels would help, "
            "more epochs hardly."
        ]
    return []


def _cost(report: Report) -> str:
    cost = report.cost
    memory = (
        f" and took at most {fmt.size(cost.peak_memory_bytes)} of {cost.peak_memory_kind}"
        if cost.peak_memory_bytes is not None
        else ""
    )
    share = fmt.percent(ratio(cost.trained_parameters, cost.total_parameters))
    return (
        f"Training lasted {fmt.duration(cost.seconds_total)} on {cost.device}{memory}. "
        f"It changed {fmt.rounded(cost.trained_parameters)} of the model's "
        f"{fmt.rounded(cost.total_parameters)} parameters ({share})."
    )


def _scenes(report: Report, part: str, kind: str) -> str:
    """`the held-out scene durban`, `5 scenes`."""
    if part not in report.data:
        return f"the {PARTS[part]} data"
    scenes = list(report.data[part].scenes)
    if len(scenes) == 1:
        return f"the {kind}{report.unit} {scenes[0]}"
    if len(scenes) <= 3:
        return f"the {kind}{report.unit}s {fmt.listing(scenes)}"
    return f"{'the ' if kind else ''}{len(scenes)} {kind}{report.unit}s"


def _of_interest(rows: list[ClassRow]) -> list[ClassRow]:
    """All classes but the background: the one called so, or the more common of two."""
    named = [row for row in rows if row.name.lower() not in ("background", "other", "none")]
    if len(named) < len(rows):
        return named
    if len(rows) == 2:
        return [min(rows, key=lambda row: row.pixels)]
    return rows


def _or_zero(value: float) -> float:
    return 0.0 if math.isnan(value) else value
