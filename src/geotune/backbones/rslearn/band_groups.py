"""Groups of bands, which Galileo, Presto and OlmoEarth embed to one token each.

Groups without bands are omitted, as masked groups were in pretraining. A missing band of a used
group is replaced by the mean of the others, which equals adapting the patch embedding to them, or
by zero, depending on the model.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geotune.backbones.bands import canonical_band


@dataclass(frozen=True)
class BandGroup:
    """A group with at least one band.

    Attributes:
        name: the model's name of the group.
        channels: for each of its bands, the image channels whose mean is its value; none for zero.
    """

    name: str
    channels: tuple[tuple[int, ...], ...]

    def select(self, images: Tensor) -> Tensor:
        """The group's bands `(B, ..., bands)` of images `(B, C, ...)`."""
        bands = [
            images[:, list(c)].mean(1) if c else torch.zeros_like(images[:, 0])
            for c in self.channels
        ]
        return torch.stack(bands, dim=-1)


def select_groups(
    model: str,
    bands: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    zero: Collection[str] = (),
) -> tuple[list[BandGroup], tuple[str, ...]]:
    """The groups that have one of `bands`, and notes for the user on missing bands.

    Args:
        model: its name in the notes.
        bands: of the images, in order; each belongs to a group.
        groups: bands of each group.
        zero: groups whose missing bands are zero instead of the mean of the others.
    """
    channel = {canonical_band(band): i for i, band in enumerate(bands)}
    used: list[BandGroup] = []
    notes: list[str] = []
    for group, names in groups.items():
        present = {
            name: channel[canonical_band(name)] for name in names if canonical_band(name) in channel
        }
        if not present:
            continue
        fallback = () if group in zero else tuple(present.values())
        channels = tuple((present[n],) if n in present else fallback for n in names)
        used.append(BandGroup(group, channels))
        missing = ", ".join(name.split()[-1] for name in names if name not in present)
        if missing and group in zero:
            notes.append(f"{model}'s group {group}: missing bands are set to zero: {missing}")
        elif missing:
            notes.append(
                f"{model}'s group {group}: {missing} missing, its embedding was adapted to "
                f"{', '.join(name.split()[-1] for name in present)}"
            )
    return used, tuple(notes)


def add_encodings(
    tokens: Tensor,
    *,
    channel: Tensor,
    dates: Tensor | None,
    months: Tensor,
    positions: Tensor | None,
) -> Tensor:
    """Add encodings to the tokens `(B, h, w, T, D)` of a group, each in a quarter of the channels.

    They are `channel` `(D / 4)` of the group, `dates` `(T, D / 4)` by order, `months`
    `(B or 1, T, D / 4)` and `positions` `(h, w, D / 4)`; None for zero.
    """
    quarter = channel.shape[0]
    if dates is None:
        dates = months.new_zeros(months.shape[1], quarter)
    shape = (*months.shape[:2], quarter)
    by_date = torch.cat([channel.expand(shape), dates.expand(shape), months], dim=-1)
    encoding = F.pad(by_date, (0, quarter))[:, None, None]
    tokens = tokens + encoding.to(tokens.dtype)
    if positions is not None:
        tokens = tokens + F.pad(positions, (3 * quarter, 0)).unsqueeze(2).to(tokens.dtype)
    return tokens
