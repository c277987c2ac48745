"""Bands in groups, as Galileo, Presto and OlmoEarth embed them: a token for each group.

A group without any band is left out, as in pretraining, where groups were masked. What feeds a
band that alone is absent from its group is a matter of the model: the mean of those present,
which is the same as fitting the patch embedding to them, or zero.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from geotune.backbones.bands import canonical


@dataclass(frozen=True)
class Group:
    """A group that has a band.

    Attributes:
        name: by which the model knows it.
        channels: for each of its bands the images' channels whose mean feeds it; none for zero.
    """

    name: str
    channels: tuple[tuple[int, ...], ...]

    def of(self, images: Tensor) -> Tensor:
        """The group's bands last, `(B, ..., bands)`, of images `(B, C, ...)`."""
        bands = [
            images[:, list(c)].mean(1) if c else torch.zeros_like(images[:, 0])
            for c in self.channels
        ]
        return torch.stack(bands, dim=-1)


def groups_in_use(
    model: str,
    bands: Sequence[str],
    groups: Mapping[str, Sequence[str]],
    *,
    zero: Collection[str] = (),
) -> tuple[list[Group], tuple[str, ...]]:
    """The groups that have one of `bands`, and what a user should know of those with gaps.

    Args:
        model: what the notes call it.
        bands: of the images, in order; each belongs to a group.
        groups: bands of each group.
        zero: groups in which a band that is absent is fed with zero; in others it is the mean of
            those present.
    """
    channel = {canonical(band): i for i, band in enumerate(bands)}
    used: list[Group] = []
    notes: list[str] = []
    for group, names in groups.items():
        present = {name: channel[canonical(name)] for name in names if canonical(name) in channel}
        if not present:
            continue
        stand_in = () if group in zero else tuple(present.values())
        used.append(Group(group, tuple((present[n],) if n in present else stand_in for n in names)))
        absent = ", ".join(name.split()[-1] for name in names if name not in present)
        if absent and group in zero:
            notes.append(f"{model}'s group {group} lacks {absent}, which are zero")
        elif absent:
            notes.append(
                f"{model}'s group {group} lacks {absent}: its embedding was fitted to "
                f"{', '.join(name.split()[-1] for name in present)} alone"
            )
    return used, tuple(notes)


def add_encodings(
    tokens: Tensor,
    *,
    channel: Tensor,
    dates: Tensor | None,
    months: Tensor,
    places: Tensor | None,
) -> Tensor:
    """Tokens `(B, h, w, T, D)` of a group with the four encodings that share their channels.

    Each has a quarter of the channels: `channel` `(D / 4)` of the group, `dates` `(T, D / 4)` by
    order, `months` `(B or 1, T, D / 4)`, `places` `(h, w, D / 4)`; zero where there is none.
    """
    quarter = channel.shape[0]
    if dates is None:
        dates = months.new_zeros(months.shape[1], quarter)
    shape = (*months.shape[:2], quarter)
    when = torch.cat([channel.expand(shape), dates.expand(shape), months], dim=-1)
    encoding = F.pad(when, (0, quarter))[:, None, None]
    tokens = tokens + encoding.to(tokens.dtype)
    if places is not None:
        tokens = tokens + F.pad(places, (3 * quarter, 0)).unsqueeze(2).to(tokens.dtype)
    return tokens
