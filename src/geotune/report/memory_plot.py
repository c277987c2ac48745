"""A bar chart of the components of peak memory."""

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


def draw_memory(path: Path, by_module: Mapping[str, Mapping[str, int]], title: str) -> None:
    """Draw a stacked bar per module, as SVG or PNG by the file's extension.

    Args:
        path: of the image file.
        by_module: bytes by module, such as `decoder`, and kind, such as `saved`.
        title: of the chart; the total is appended.
    """
    figure = Figure(figsize=(7.2, 1.3 + 0.42 * len(by_module)), layout="constrained")
    axes = figure.add_subplot()
    modules = list(by_module)[::-1]  # the first at the top
    starts = [0.0] * len(modules)
    for kind, color in COLORS.items():
        widths = [by_module[module].get(kind, 0) / 1e9 for module in modules]
        if any(widths):
            axes.barh(
                modules, widths, left=starts, color=color, label=kind.replace("_", " "), height=0.7
            )
            starts = [start + width for start, width in zip(starts, widths, strict=True)]
    for row, module in enumerate(modules):
        total = sum(by_module[module].values())
        axes.text(starts[row], row, f" {size(total)}", va="center", fontsize=9)
    axes.set_xlim(right=1.15 * max(starts, default=1.0))
    axes.set_xlabel("GB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    total = sum(sum(kinds.values()) for kinds in by_module.values())
    axes.set_title(f"{title}: {size(total)}", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "memory"}):
        extension = path.suffix.removeprefix(".")
        metadata = {"Date": None} if extension == "svg" else {}
        figure.savefig(buffer, format=extension, dpi=150, metadata=metadata)
    write_atomically(path, buffer.getvalue())
