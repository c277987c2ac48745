"""Draw boxes or points on windows, coloured as correct, false, missed or ignored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from geotune.boxes.oriented import as_oriented, centres, corners
from geotune.report.images import MAX_SIDE, shrunk
from geotune.report.tasks.base import Picture
from geotune.utils.colors import Color

TRUE: Color = (0, 190, 120)
FALSE: Color = (240, 80, 60)
MISSED: Color = (250, 215, 40)
IGNORED: Color = (170, 170, 170)

Boxes = NDArray[Any]


def boxes_on(image: Picture, boxes: Mapping[Color, Boxes], *, points: bool) -> Picture:
    """Draw boxes `(N, 4)` or `(N, 5)` on an image `(H, W, 3)`, by colour.

    Args:
        points: draw the centres only. Small windows are enlarged, so that lines stay thin.
    """
    factor = max(1, MAX_SIDE // max(image.shape[:2]))
    shown = shrunk(image) if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = shown.shape[1] / image.shape[1]
    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    for color, group in boxes.items():
        if points:
            for x, y in centres(group) * scale:
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=color, width=2)
            continue
        for outline in corners(as_oriented(group)) * scale:
            draw.line([tuple(p) for p in (*outline, outline[0])], fill=color, width=2)
    return np.asarray(picture)
