"""The plain sentences at the top."""

from __future__ import annotations

from dataclasses import replace

from geotune.report.context import Report, SplitSummary
from geotune.report.summary import summary
from geotune.report.tasks.base import find_page


def text(report: Report) -> str:
    return " ".join(summary(report, find_page(report.task))).replace("\N{NO-BREAK SPACE}", " ")


def test_it_says_what_was_found_on_the_held_out_scene(report: Report) -> None:
    said = text(report)
    assert "whether it is background or ship" in said
    assert "on the scenes athens and cartagena" in said
    assert (
        "On the held-out scene busan, the model finds 61 % of the pixels labelled ship, "
        "and 65 % of what it marks as ship is right." in said
    )
    assert "(mean IoU), is 0.710" in said
    assert "background alone covers 99.2 %" in said
    assert "13 min 43 s on CPU (2 cores) and took at most 1.7 GB" in said
    assert "1.48 million parameters (28 %)" in said


def test_without_test_data_it_warns_that_validation_is_kind(report: Report) -> None:
    val = replace(report, metrics={"val": report.metrics["val"]})
    val = replace(val, confusion={"val": report.confusion["val"]})
    assert "On the held-out scene durban, the model finds 70 %" in text(val)
    assert "a test split would tell" in text(val)
    assert "a test split would tell" not in text(report)


def test_a_model_that_marks_nothing_is_said_so(report: Report) -> None:
    nothing = replace(report, confusion={"test": [[19850, 0], [150, 0]]})
    assert "marks nothing as ship, and so misses all of it" in text(nothing)


def test_a_class_without_labels_is_not_judged(report: Report) -> None:
    said = text(replace(report, confusion={"test": [[19850, 3], [0, 0]]}))
    assert "no ship" not in said
    assert "finds" not in said


def test_many_classes_are_told_by_the_best_and_the_worst(report: Report) -> None:
    names = ["shadow", "water", "land", "cloud", "snow"]
    counts = [[5, 1, 4, 0, 0], [0, 9, 1, 0, 0], [0, 0, 70, 0, 0], [2, 0, 0, 9, 0], [0] * 5]
    said = text(
        replace(
            report,
            classes=names,
            colors=[(0, 0, 0)] * 5,
            data={"test": SplitSummary(["a", "b", "c", "d"], [1] * 5)},
            confusion={"test": counts},
            metrics={
                "test": dict(zip((f"iou/{n}" for n in names), (0.4, 0.8, 0.9, 0.7, 0), strict=True))
            },
            history=[],
        )
    )
    assert "On the 4 held-out scenes, the model does best at land: it finds 100 %" in said
    assert "worst at shadow: it finds 50 % of the pixels labelled shadow" in said
    assert "mostly takes for land" in said
    assert "no pixel labelled snow" in said


def test_hints_from_the_curves(report: Report) -> None:
    def history(scores: list[float], losses: list[float]) -> Report:
        pairs = zip(scores, losses, strict=True)
        rows = [{"epoch": i, "val/miou": s, "val/loss": v} for i, (s, v) in enumerate(pairs, 1)]
        return replace(report, history=rows)

    rising = history([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [6, 5, 4, 3, 2, 1])
    assert "more epochs may help" in text(rising)
    overfit = history([0.1, 0.5, 0.6, 0.5, 0.5, 0.5], [3, 2, 1, 2, 3, 4])
    assert "After epoch 3 it got no better" in text(overfit)
    level = history([0.1, 0.5, 0.6, 0.6, 0.61, 0.6], [3, 2, 1, 1, 1, 1])
    assert "epoch" not in text(level)


def test_a_test_score_far_below_validation_is_pointed_out(report: Report) -> None:
    low = {**report.metrics, "test": {"miou": 0.5}}
    assert "differs much from scene to scene" in text(replace(report, metrics=low))
    assert "differs much" not in text(report)
