"""Dates and locations in the format of Galileo, Presto and OlmoEarth."""

from __future__ import annotations

import torch
from torch import Tensor

_STARTS = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
"""Days of the year before each month."""


def months_and_days(time: Tensor) -> tuple[Tensor, Tensor]:
    """Month (from 0) and day of month (from 1), `(B, T)`, of `time` as in `Backbone.forward`."""
    year, day = time.long().unbind(-1)
    leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    starts = torch.tensor(_STARTS, device=time.device)
    after_february = torch.arange(12, device=time.device) >= 2
    starts = starts + (leap.unsqueeze(-1) & after_february)
    day = day.clamp(min=1)
    month = (day.unsqueeze(-1) > starts).sum(-1) - 1
    return month, day - starts.gather(-1, month.unsqueeze(-1)).squeeze(-1)


def lonlat_to_xyz(location: Tensor) -> Tensor:
    """Convert longitude and latitude in degrees `(B, 2)` to points `(B, 3)` on the unit sphere."""
    longitude, latitude = torch.deg2rad(location).unbind(-1)
    x, y = latitude.cos() * longitude.cos(), latitude.cos() * longitude.sin()
    return torch.stack([x, y, latitude.sin()], dim=-1)
