"""How much is lost where a model has never been: regions that it saw against those it did not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from geotune.data.dataset import GridWindows
from geotune.data.prepare import DataParts
from geotune.training.evaluate import Evaluation

MOST_WINDOWS = 512
"""Of training scenes that are measured to compare with, evenly spread."""

Kind = Literal["test", "validation", "training"]


@dataclass(frozen=True)
class RegionGap:
    """Metrics in regions with training scenes, and in regions without.

    Attributes:
        seen: metrics in the former.
        unseen: metrics of the test part in the latter.
        seen_in: which scenes of the seen regions were measured: of the test part; where it has
            none there, of the validation part (which chose the epoch); else the training scenes
            themselves, which says what is lost at most.
        seen_regions: by name.
        unseen_regions: by name.
    """

    seen: dict[str, float]
    unseen: dict[str, float]
    seen_in: Kind
    seen_regions: list[str]
    unseen_regions: list[str]


def region_gap(
    data: DataParts, tested: Evaluation, measure: Callable[[GridWindows], Evaluation]
) -> RegionGap | None:
    """What a test in new regions says, beside one in the regions of the training.

    `tested` is of the whole test part. None where all of its regions were trained in. A region is
    what the split calls a group.
    """
    assert data.test is not None
    trained = {scene.group for scene in data.train.scenes}
    new = {scene.group for scene in data.test.scenes} - trained
    unseen = data.test.of(new)
    if not len(unseen):
        return None
    kinds: tuple[tuple[Kind, GridWindows], ...] = (
        ("test", data.test),
        ("validation", data.val),
        ("training", data.train_grid),
    )
    measurable = ((kind, windows.of(trained, most=MOST_WINDOWS)) for kind, windows in kinds)
    kind, seen = next((kind, windows) for kind, windows in measurable if len(windows))
    return RegionGap(
        seen=measure(seen).metrics,
        unseen=(tested if len(unseen) == len(data.test) else measure(unseen)).metrics,
        seen_in=kind,
        seen_regions=sorted({scene.group for scene in seen.scenes}),
        unseen_regions=sorted(new),
    )
