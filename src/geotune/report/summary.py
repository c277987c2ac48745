"""What a run came to, in plain sentences made from its numbers."""

from __future__ import annotations

import math

from geotune.report import number_format as fmt
from geotune.report.context import Report
from geotune.report.plots import series
from geotune.report.split_names import evaluated, scenes_of
from geotune.report.tables import ratio
from geotune.report.tasks.base import TaskPage

_ENOUGH_EPOCHS = 6
_FAR = 0.1
_FAR_RATIO = 1.5


def summary(report: Report, page: TaskPage) -> list[str]:
    """The sentences at the top of the page, each a paragraph."""
    said = [_what(report, page), *_judged(report, page), *_training(report, page), _cost(report)]
    return [sentence for sentence in said if sentence]


def _what(report: Report, page: TaskPage) -> str:
    text = (
        f"This model {page.purpose(report)}. "
        f"It is {report.backbone.name}, tuned by the method “{report.method}”"
    )
    train = report.data.get("train")
    return f"{text} on {scenes_of(report, 'train', '')}." if train else f"{text}."


def _judged(report: Report, page: TaskPage) -> list[str]:
    """By the test data, else the validation data."""
    part = next(iter(evaluated(report)), None)
    if part is None:
        return []
    said = page.result(report, part)
    value = report.metrics.get(part, {}).get(page.main, math.nan)
    if fmt.missing(value):
        return said
    return [*said, page.overall(report, part, value) + _how_sure(report, page, part, value)]


def _how_sure(report: Report, page: TaskPage, part: str, value: float) -> str:
    """How far the figure of a part can be trusted."""
    val = report.metrics.get("val", {}).get(page.main, math.nan)
    if part == "val" and report.best_epoch is not None:
        return (
            " The same data chose which epoch was kept, so expect somewhat less on new "
            f"{report.unit}s; a test split would tell."
        )
    far = value > _FAR_RATIO * val if page.lower else val - value > _FAR
    if part == "test" and far:
        shown = fmt.number(val) if page.lower else fmt.score(val)
        return (
            f" On the validation data it was {shown}: how well it does differs "
            f"much from {report.unit} to {report.unit}."
        )
    return ""


def _training(report: Report, page: TaskPage) -> list[str]:
    """A hint where the curves clearly give one."""
    epochs, scores = series(report.history, f"val/{page.main}")
    losses = series(report.history, "val/loss")[1]
    if len(scores) < _ENOUGH_EPOCHS:
        return []
    best = scores.index(min(scores) if page.lower else max(scores))
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
