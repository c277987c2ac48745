"""The summary of a run in sentences."""

from __future__ import annotations

import math

from geotune.report import number_format as fmt
from geotune.report.context import Report, evaluated_splits, scenes_of
from geotune.report.plots import series
from geotune.report.tables import ratio
from geotune.report.tasks.base import TaskPage

_MIN_EPOCHS = 6
_LARGE_DROP = 0.1
_LARGE_DROP_RATIO = 1.5


def summary(report: Report, page: TaskPage) -> list[str]:
    """The paragraphs at the top of the page."""
    return [_model(report, page), *_scores(report, page), *_training(report, page), _cost(report)]


def _model(report: Report, page: TaskPage) -> str:
    text = (
        f"This model {page.purpose(report)}. "
        f"The backbone is {report.backbone.name}, tuned with the method “{report.method}”"
    )
    train = report.data.get("train")
    return f"{text} on {scenes_of(report, 'train', '')}." if train else f"{text}."


def _scores(report: Report, page: TaskPage) -> list[str]:
    """The scores on the test split, or else on the validation split."""
    split = next(iter(evaluated_splits(report)), None)
    if split is None:
        return []
    sentences = page.result(report, split)
    value = report.metrics.get(split, {}).get(page.main, math.nan)
    if fmt.missing(value):
        return sentences
    overall = page.overall(report, split, value)
    return [*sentences, overall + _reliability(report, page, split, value)]


def _reliability(report: Report, page: TaskPage, split: str, value: float) -> str:
    """A caution if the score is biased or differs much between splits."""
    val = report.metrics.get("val", {}).get(page.main, math.nan)
    if split == "val" and report.best_epoch is not None:
        return (
            " The best epoch was selected on the same data, so expect a slightly worse score on "
            f"new {report.unit}s; add a test split for an unbiased estimate."
        )
    large_drop = (
        value > _LARGE_DROP_RATIO * val if page.lower_is_better else val - value > _LARGE_DROP
    )
    if split == "test" and large_drop:
        shown = fmt.number(val) if page.lower_is_better else fmt.score(val)
        return (
            f" On the validation data it was {shown}: "
            f"the score differs much between {report.unit}s."
        )
    return ""


def _training(report: Report, page: TaskPage) -> list[str]:
    """A hint if the model was still improving or was overfitting."""
    epochs, scores = series(report.history, f"val/{page.main}")
    losses = series(report.history, "val/loss")[1]
    if len(scores) < _MIN_EPOCHS:
        return []
    best = scores.index(min(scores) if page.lower_is_better else max(scores))
    if best >= len(scores) - max(1, len(scores) // 10):
        return ["The validation score was still improving at the end: more epochs may help."]
    if losses and losses[-1] > 1.25 * min(losses) and best < len(scores) * 2 / 3:
        return [
            f"The validation score did not improve after epoch {epochs[best]:g} while the "
            "validation loss rose: the model overfits. More labels are likely to help, more "
            "epochs are not."
        ]
    return []


def _cost(report: Report) -> str:
    cost = report.cost
    memory = (
        f", with a peak of {fmt.size(cost.peak_memory_bytes)} of {cost.peak_memory_kind}"
        if cost.peak_memory_bytes is not None
        else ""
    )
    share = fmt.percent(ratio(cost.trained_parameters, cost.total_parameters))
    return (
        f"Training took {fmt.duration(cost.seconds_total)} on {cost.device}{memory}. "
        f"It updated {fmt.rounded(cost.trained_parameters)} of the model's "
        f"{fmt.rounded(cost.total_parameters)} parameters ({share})."
    )
