"""rslearn's models by name, and what they share."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from geotune.backbones.base import Backbone
from geotune.backbones.rslearn.band_groups import select_groups
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.rslearn.rslearn_provider import MODELS
from helpers.errors import raises

MakeBackbone = Callable[..., Backbone]


@pytest.mark.parametrize(
    ("name", "similar"),
    [
        ("galileo_huge", "rslearn/galileo_"),
        ("olmoearth_nano", "rslearn/olmoearth_v1_nano"),
        ("nano", "rslearn/galileo_nano"),
    ],
)
def test_an_unknown_model_is_rejected_with_similar_names(
    make_backbone: MakeBackbone, name: str, similar: str
) -> None:
    pytest.importorskip("rslearn")
    pytest.importorskip("einops")
    with raises("backbone-unknown", key="backbone.name", mentions=[f"rslearn/{name}", similar]):
        make_backbone(f"rslearn/{name}")


@pytest.mark.parametrize("missing", ["rslearn", "einops"])
def test_a_missing_package_is_reported(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, "einops", object())
    monkeypatch.setitem(sys.modules, "rslearn", object())
    monkeypatch.setitem(sys.modules, missing, None)
    with raises("dependency-missing", key="backbone.name", mentions=[missing, "geotune[rslearn]"]):
        make_backbone("rslearn/galileo_nano")


def test_model_info_is_complete() -> None:
    assert {"galileo_base", "presto", "olmoearth_v1_large", "olmoearth_v1_3_base"} <= set(MODELS)
    for info in MODELS.values():
        assert "arXiv" in info.paper
        assert info.licence
        assert info.weights
        assert info.bands
        assert len(info.mean) == len(info.std)
        assert len(info.mean) in (0, len(info.bands))


def test_months_and_days_match_the_calendar() -> None:
    from datetime import date, timedelta

    for year in (1900, 2000, 2023, 2024):
        first = date(year, 1, 1)
        days = [first + timedelta(days=i) for i in range((date(year + 1, 1, 1) - first).days)]
        time = torch.tensor([[[year, i + 1] for i in range(len(days))]], dtype=torch.float32)
        months, of_month = months_and_days(time)
        assert months[0].tolist() == [day.month - 1 for day in days]
        assert of_month[0].tolist() == [day.day for day in days]


def test_locations_lie_on_the_unit_sphere() -> None:
    points = lonlat_to_xyz(torch.tensor([[0.0, 0.0], [90.0, 0.0], [10.0, 90.0]]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(points, expected, atol=1e-6, rtol=0)


def test_missing_bands_are_the_mean_of_their_group_or_zero() -> None:
    images = torch.arange(4.0).reshape(1, 4, 1, 1)
    bands = ["B04", "x", "B02", "y"]
    groups = {"rgb": ["B2", "B3", "B4"], "none": ["B8"], "xyz": ["x", "y", "z"]}
    used, notes = select_groups("Model", bands, groups, zero=["xyz"])
    assert [group.name for group in used] == ["rgb", "xyz"]
    assert [group.select(images).flatten().tolist() for group in used] == [[2, 1, 0], [1, 3, 0]]
    assert notes == (
        "Model's group rgb: B3 missing, its embedding was adapted to B2, B4",
        "Model's group xyz: missing bands are set to zero: z",
    )
