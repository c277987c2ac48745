"""Dates and places as Galileo, Presto and OlmoEarth take them."""

from __future__ import annotations

import torch
from torch import Tensor

_STARTS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)  # of months, days before them


def months_and_days(time: Tensor) -> tuple[Tensor, Tensor]:
    """Month (from 0) and day of the month (from 1), `(B, T)`, of `time` as `Backbone.forward`."""
    year, day = time.long().unbind(-1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    starts = torch.tensor(_STARTS, device=time.device)
    after_february = torch.arange(12, device=time.device) >= 2
    starts = starts + (leap.unsqueeze(-1) & after_february)
    day = day.clamp(min=1)
    month = (day.unsqueeze(-1) > starts).sum(-1) - 1
    return month, day - starts.gather(-1, month.unsqueeze(-1)).squeeze(-1)


def lonlat_to_xyz(location: Tensor) -> Tensor:
    """Points `(B, 3)` on the unit sphere of longitudes and latitudes `(B, 2)` in degrees."""
    longitude, latitude = torch.deg2rad(location).unbind(-1)
    return torch.stack(
        [
            latitude.cos() * longitude.cos(),
            latitude.cos() * longitude.sin(),
            latitude.sin(),
        ],
        dim=-1,
    )
