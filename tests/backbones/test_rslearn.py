"""rslearn's models by name."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from geotune.backbones.base import Backbone
from geotune.backbones.rslearn.band_groups import select_groups
from geotune.backbones.rslearn.date_location import lonlat_to_xyz, months_and_days
from geotune.backbones.rslearn.rslearn_provider import MODELS
from geotune.errors import GeotuneError

MakeBackbone = Callable[..., Backbone]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("galileo_huge", "near it: rslearn/galileo_"),
        ("olmoearth_nano", "near it: rslearn/olmoearth_v1_nano"),
        ("nano", "known: rslearn/galileo_nano, rslearn/galileo_tiny"),
    ],
)
def test_an_unknown_model_gives_the_known_ones(
    make_backbone: MakeBackbone, name: str, near: str
) -> None:
    pytest.importorskip("rslearn")
    pytest.importorskip("einops")
    with pytest.raises(GeotuneError, match=f"rslearn/{name}: unknown; {near}"):
        make_backbone(f"rslearn/{name}")


@pytest.mark.parametrize("missing", ["rslearn", "einops"])
def test_a_missing_extra_is_named(
    make_backbone: MakeBackbone, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setitem(sys.modules, "einops", object())
    monkeypatch.setitem(sys.modules, "rslearn", object())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(GeotuneError, match=rf"{missing}.* pip install 'geotune\[rslearn\]'"):
        make_backbone("rslearn/galileo_nano")


def test_facts_are_whole() -> None:
    assert {"galileo_base", "presto", "olmoearth_v1_large", "olmoearth_v1_3_base"} <= set(MODELS)
    for info in MODELS.values():
        assert "arXiv" in info.paper
        assert info.licence
        assert info.weights
        assert info.bands
        assert len(info.mean) == len(info.std)
        assert len(info.mean) in (0, len(info.bands))


def test_months_and_days_are_those_of_the_calendar() -> None:
    from datetime import date, timedelta

    for year in (1900, 2000, 2023, 2024):
        first = date(year, 1, 1)
        days = [first + timedelta(days=i) for i in range((date(year + 1, 1, 1) - first).days)]
        time = torch.tensor([[[year, i + 1] for i in range(len(days))]], dtype=torch.float32)
        months, of_month = months_and_days(time)
        assert months[0].tolist() == [day.month - 1 for day in days]
        assert of_month[0].tolist() == [day.day for day in days]


def test_places_lie_on_the_unit_sphere() -> None:
    points = lonlat_to_xyz(torch.tensor([[0.0, 0.0], [90.0, 0.0], [10.0, 90.0]]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    torch.testing.assert_close(points, expected, atol=1e-6, rtol=0)


def test_absent_bands_are_fed_by_their_group_or_with_zero() -> None:
    images = torch.arange(4.0).reshape(1, 4, 1, 1)
    bands = ["B04", "x", "B02", "y"]
    groups = {"rgb": ["B2", "B3", "B4"], "none": ["B8"], "xyz": ["x", "y", "z"]}
    used, notes = select_groups("It", bands, groups, zero=["xyz"])
    assert [group.name for group in used] == ["rgb", "xyz"]
    assert [group.of(images).flatten().tolist() for group in used] == [[2, 1, 0], [1, 3, 0]]
    assert notes == (
        "It's group rgb lacks B3: its embedding was fitted to B2, B4 alone",
        "It's group xyz lacks z, which are zero",
    )
