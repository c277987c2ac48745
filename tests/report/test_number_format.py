"""Numbers as people read them."""

from __future__ import annotations

import math

import pytest

from geotune.report import number_format as fmt


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{NARROW NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"), (0.00001, "<0.01 %"), (0.0005, "0.05 %"), (0.005, "0.5 %"), (0.0994, "9.9 %"),
        (0.0996, "10 %"), (0.614, "61 %"), (0.989, "99 %"), (0.9949, "99.5 %"),
        (0.9997, ">99.9 %"), (1, "100 %"), (math.nan, "–"), (None, "–"),
    ],
)  # fmt: skip
def test_percent(share: float | None, text: str) -> None:
    assert plain(fmt.percent(share)) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.84, "0.8 s"), (41.6, "42 s"), (59.8, "1 min 0 s"), (823, "13 min 43 s"),
     (12_000, "3 h 20 min"), (None, "–"), (math.nan, "–")],
)  # fmt: skip
def test_duration(seconds: float | None, text: str) -> None:
    assert plain(fmt.duration(seconds)) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(12, "12 B"), (1_660_000, "1.7 MB"), (460_000, "460 kB"), (1_730_000_000, "1.7 GB"),
     (None, "–")],
)  # fmt: skip
def test_size(value: int | None, text: str) -> None:
    assert plain(fmt.size(value)) == text


def test_counts_scores_and_lists() -> None:
    assert plain(fmt.count(1_478_812)) == "1 478 812"
    assert plain(fmt.rounded(1_478_812)) == "1.48 million"
    assert plain(fmt.rounded(412_345)) == "412 345"
    assert (fmt.score(0.4372), fmt.score(math.nan), fmt.score(None)) == ("0.437", "–", "–")
    assert fmt.listing(["a"]) == "a"
    assert fmt.listing(["a", "b", "c"], "or") == "a, b or c"
