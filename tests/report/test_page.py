"""The HTML page."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from geotune.report.context import BackboneSummary, Cost, Example, Report, SplitSummary
from geotune.report.page import render, write_report
from helpers.errors import raises

EVIL = "<script>alert('x')</script>\"><img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Every tag with its attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_page_has_all_sections(report: Report) -> None:
    page = Page(render(report))
    text = " ".join(page.text.split()).replace("\N{NO-BREAK SPACE}", " ")
    for expected in (
        "Summary",
        "Results by class, test data (busan)",
        "Confusion matrix, validation data",
        "durban (0, 128) · mean IoU 0.750",
        "no label or no data: ignored incorrect, in the last picture",
        "Best",
        "Worst",
        "B04, B03 and B02 as red, green and blue",
        "1.7 GB (memory)",
        "13 min 43 s, 41 s per epoch",
        "Training: 2 scenes",
        "athens, cartagena",
        "busan.geojson: two polygons lie outside the scene",
        "nasaharvest/galileo",
        "2.15.0",
        "backbone: {name: rslearn/galileo_nano}",
        "normalisation: the backbone's own",
    ):
        assert expected in text
    assert len(page.of("svg")) == 3
    assert len(page.of("img")) == 8
    assert all(picture["alt"] for picture in page.of("img"))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    linked = {str(link["href"])[1:] for link in page.of("a")}
    assert linked <= set(ids)


def test_the_lowest_class_stands_before_the_mean(report: Report) -> None:
    metrics = {"miou": 0.498, "iou/background": 0.993, "iou/ship": 0.003}
    chosen = {"class": "ship", "threshold": 0.25, "iou": 0.31, "iou_most_likely": 0.003}
    details = {"class_thresholds": {"test": [chosen]}}
    html = render(replace(report, metrics={"test": metrics}, details=details))
    text = " ".join(Page(html).text.split()).replace("\N{NO-BREAK SPACE}", " ")
    assert "0.003IoU of ship, the lowest class, test data" in text.partition("0.498mean IoU")[0]
    assert "The lowest IoU, of ship, is 0.003; the mean over all classes is 0.498" in text
    assert "at least 0.25 is mapped as ship (geotune predict --threshold ship=auto)" in text


def test_page_has_no_scripts_and_no_external_files(report: Report) -> None:
    html = render(report)
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for key, value in attributes.items():
            if key in ("src", "href", "xlink:href", "srcset"):
                assert str(value).startswith(("data:image/png;base64,", "#"))
            assert not key.startswith("on")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    assert "default-src 'none'" in html


def test_names_are_escaped(report: Report, window: Callable[..., Example]) -> None:
    evil = replace(
        report,
        name=EVIL,
        method=EVIL,
        decoder=EVIL,
        classes=["background", EVIL],
        backbone=BackboneSummary(EVIL, EVIL, EVIL, random_weights=True),
        cost=replace(report.cost, device=EVIL, peak_memory_kind=EVIL),
        recipe_yaml=EVIL,
        best=[window(EVIL)],
        data={"train": SplitSummary([EVIL], [1, 1]), "test": SplitSummary([EVIL] * 20, [1, 1])},
        unit=EVIL,
        shown_bands=[EVIL] * 3,
        versions={EVIL: EVIL},
        data_notes=[EVIL],
        notes=[EVIL],
        warnings=[EVIL],
        created=EVIL,
    )
    page = Page(render(evil))
    assert "script" not in {tag for tag, _ in page.tags}
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert page.text.count(EVIL) > 20


def test_missing_numbers_are_dashes(report: Report) -> None:
    page = Page(render(replace(report, metrics={"val": {"miou": math.nan}}, confusion={})))
    words = re.findall(r"\w+", page.text)
    assert not {"nan", "NaN", "None"} & set(words)
    assert page.text.count("–") > 5


def test_random_weights_have_a_banner(report: Report) -> None:
    random = replace(report, backbone=replace(report.backbone, random_weights=True))
    assert "has random weights" in Page(render(random)).text
    assert "random weights" not in Page(render(report)).text


def test_warnings_have_a_banner(report: Report) -> None:
    assert not [a for _, a in Page(render(report)).tags if a.get("role") == "alert"]
    page = Page(render(replace(report, warnings=["mask.tif: 12 pixels of value 2"])))
    assert [a for _, a in page.tags if a.get("role") == "alert"]
    assert "mask.tif: 12 pixels of value 2" in page.text


def test_minimal_report() -> None:
    bare = Report(
        name="bare",
        method="frozen",
        decoder="linear",
        classes=["a", "b"],
        colors=[(0, 0, 0), (255, 255, 255)],
        backbone=BackboneSummary("timm/resnet18", "unknown", "unknown"),
        cost=Cost("CPU", math.nan, math.nan, 0, 0),
        recipe_yaml="",
    )
    page = Page(render(bare))
    assert "No epochs were recorded" in page.text
    assert not {"nan", "NaN", "None"} & set(re.findall(r"\w+", page.text))
    anchors = {str(link["href"])[1:] for link in page.of("a")}
    assert anchors <= {a["id"] for _, a in page.tags if "id" in a}


def test_page_with_eight_large_windows_is_below_three_megabytes(
    report: Report, window: Callable[..., Example]
) -> None:
    windows = [window(f"chip {i}", 512) for i in range(8)]
    html = render(replace(report, best=windows[:4], worst=windows[4:]))
    assert len(html.encode()) < 3e6


def test_writing_replaces_the_old_page(report: Report, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, report)
    assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    assert list(tmp_path.iterdir()) == [path]


def test_failed_write_keeps_the_old_page(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def disk_full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_full)
    with raises("output-not-writable", file=path, mentions=["No space left"]):
        write_report(path, report)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_file_in_place_of_the_folder_is_an_error(report: Report, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "report.html"
    with raises("output-not-writable", file=path):
        write_report(path, report)


PAIRS = {"pairs": {"test": [[float(i), i * 0.9 + 1] for i in range(20)]}}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {
                "task": "regress",
                "classes": ["height"],
                "value_unit": "m",
                "metrics": {"test": {"rmse": 2.5, "mae": 2.0, "r2": 0.75, "bias": -1.5}},
                "details": PAIRS,
            },
            ["predicts height in m for every pixel", "error is 2 m", "too low", "75 %", "RMSE"],
        ),
        (
            {
                "task": "density",
                "classes": ["trees"],
                "label_unit": "object",
                "metrics": {
                    "test": {
                        "mae": 3.0,
                        "rmse": 4.0,
                        "bias": 1.0,
                        "relative": 0.25,
                        "counted": 110.0,
                        "labelled": 100.0,
                    }
                },
                "details": PAIRS,
            },
            ["counts trees", "counts 110 trees; 100 are labelled (10 % too many)", "25 %"],
        ),
        (
            {
                "task": "classify",
                "classes": ["forest", "river"],
                "label_unit": "image",
                "metrics": {
                    "test": {"f1": 0.8, "accuracy": 0.9, "f1/forest": 0.7, "f1/river": 0.9}
                },
                "confusion": {"test": [[7, 3], [1, 9]]},
            },
            ["classifies each image as forest or river", "7", "images labelled", "0.800"],
        ),
        (
            {
                "task": "classify several",
                "classes": ["forest", "river"],
                "label_unit": "image",
                "metrics": {"test": {"ap": 0.8, "f1": 0.7, "accuracy": 0.9, "ap/forest": 0.7}},
                "details": {"decisions": {"test": [[[5, 1], [2, 4]], [[0, 0], [3, 9]]]}},
            },
            ["which of forest and river each", "Average precision", "overall accuracy"],
        ),
    ],
)
def test_every_task_has_a_page(
    report: Report, changes: dict[str, Any], expected: list[str]
) -> None:
    count = len(changes["classes"])
    data = {"test": SplitSummary(["busan"], [20] * count)}
    other = {"best": (), "worst": (), "history": (), "confusion": {}, "data": data}
    colors = [(0, 0, 0)] * count
    html = render(replace(report, **{**other, "colors": colors, **changes}))
    text = " ".join(Page(html).text.split()).replace("\N{NO-BREAK SPACE}", " ")
    for words in expected:
        assert words in text
    assert "IoU" not in text
    assert len(Page(html).of("svg")) == (2 if "pairs" in changes.get("details", {}) else 0)
    assert not {"nan", "NaN", "None"} & set(re.findall(r"\w+", text))
