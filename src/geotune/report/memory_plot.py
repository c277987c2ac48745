"""A figure of what a peak of memory consists of."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from geotune.report.number_format import size
from geotune.utils.atomic import write_atomically

COLORS = {
    "frozen": "#9aa5b1",
    "trained": "#3b82d6",
    "gradients": "#e07b26",
    "optimizer_state": "#8e5bbf",
    "saved": "#3c9d63",
    "transient": "#d9b036",
}


def draw_memory(path: Path, by_place: Mapping[str, Mapping[str, int]], title: str) -> None:
    """Draw a bar for each place, stacked by part, as SVG or PNG by the file's name.

    Args:
        path: of the figure.
        by_place: bytes of each part, such as `saved`, by place, such as `decoder`.
        title: above it.
    """
    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(by_place)), layout="constrained")
    axes = figure.add_subplot()
    places = list(by_place)[::-1]  # the first at the top
    starts = [0.0] * len(places)
    for part, color in COLORS.items():
        widths = [by_place[place].get(part, 0) / 1e9 for place in places]
        if any(widths):
            axes.barh(
                places, widths, left=starts, color=color, label=part.replace("_", " "), height=0.7
            )
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for row, place in enumerate(places):
        total = sum(by_place[place].values())
        axes.text(starts[row], row, f" {size(total)}", va="center", fontsize=9)
    axes.set_xlim(right=1.15 * max(starts, default=1.0))
    axes.set_xlabel("GB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    total = sum(sum(parts.values()) for parts in by_place.values())
    axes.set_title(f"{title}: {size(total)}", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "memory"}):
        kind = path.suffix.removeprefix(".")
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, dpi=150, metadata=metadata)
    write_atomically(path, buffer.getvalue())
