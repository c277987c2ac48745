"""The summary at the top of the report."""

from __future__ import annotations

from dataclasses import replace

from geotune.report.context import Report, SplitSummary
from geotune.report.summary import summary
from geotune.report.tasks.base import find_page


def text(report: Report) -> str:
    return " ".join(summary(report, find_page(report.task))).replace("\N{NO-BREAK SPACE}", " ")


def test_results_on_the_held_out_scene(report: Report) -> None:
    summary_text = text(report)
    assert "classifies every pixel as background or ship" in summary_text
    assert "on the scenes athens and cartagena" in summary_text
    assert (
        "On the held-out scene busan, the model finds 61 % of the pixels labelled ship, "
        "and 65 % of its ship predictions are correct." in summary_text
    )
    assert "mean IoU over all classes is 0.710" in summary_text
    assert "background alone covers 99.2 %" in summary_text
    assert "13 min 43 s on CPU (2 cores), with a peak of 1.7 GB" in summary_text
    assert "1.48 million parameters (28 %)" in summary_text


def test_validation_scores_are_marked_as_biased(report: Report) -> None:
    val = replace(report, metrics={"val": report.metrics["val"]})
    val = replace(val, confusion={"val": report.confusion["val"]})
    assert "On the held-out scene durban, the model finds 70 %" in text(val)
    assert "add a test split" in text(val)
    assert "add a test split" not in text(report)


def test_class_that_is_never_predicted(report: Report) -> None:
    nothing = replace(report, confusion={"test": [[19850, 0], [150, 0]]})
    assert "never predicts ship" in text(nothing)


def test_class_without_labels_has_no_result(report: Report) -> None:
    summary_text = text(replace(report, confusion={"test": [[19850, 3], [0, 0]]}))
    assert "no ship" not in summary_text
    assert "finds" not in summary_text


def test_of_many_classes_the_best_and_the_worst_are_named(report: Report) -> None:
    names = ["shadow", "water", "land", "cloud", "snow"]
    counts = [[5, 1, 4, 0, 0], [0, 9, 1, 0, 0], [0, 0, 70, 0, 0], [2, 0, 0, 9, 0], [0] * 5]
    summary_text = text(
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
    assert "On the 4 held-out scenes, the model is best at land: it finds 100 %" in summary_text
    assert "worst at shadow: it finds 50 % of the pixels labelled shadow" in summary_text
    assert "predicted as land" in summary_text
    assert "no pixel labelled snow" in summary_text


def test_hints_from_the_curves(report: Report) -> None:
    def history(scores: list[float], losses: list[float]) -> Report:
        pairs = zip(scores, losses, strict=True)
        rows = [{"epoch": i, "val/miou": s, "val/loss": v} for i, (s, v) in enumerate(pairs, 1)]
        return replace(report, history=rows)

    rising = history([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [6, 5, 4, 3, 2, 1])
    assert "more epochs may help" in text(rising)
    overfit = history([0.1, 0.5, 0.6, 0.5, 0.5, 0.5], [3, 2, 1, 2, 3, 4])
    assert "did not improve after epoch 3" in text(overfit)
    level = history([0.1, 0.5, 0.6, 0.6, 0.61, 0.6], [3, 2, 1, 1, 1, 1])
    assert "epoch" not in text(level)


def test_large_drop_from_validation_to_test_is_reported(report: Report) -> None:
    low = {**report.metrics, "test": {"miou": 0.5}}
    assert "differs much between scenes" in text(replace(report, metrics=low))
    assert "differs much" not in text(report)
