"""Boxes on windows, in three colours: what was found, what is false, what was missed."""

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
UNCOUNTED: Color = (170, 170, 170)

Boxes = NDArray[Any]


def boxes_on(image: Picture, boxes: Mapping[Color, Boxes], *, points: bool) -> Picture:
    """The image `(H, W, 3)` with boxes `(N, 4)` or `(N, 5)` in their colours, as points if asked.

    Small windows are enlarged, so that lines are thin beside what they surround.
    """
    factor = max(1, MAX_SIDE // max(image.shape[:2]))
    shown = shrunk(image) if factor == 1 else image.repeat(factor, axis=0).repeat(factor, axis=1)
    scale = shown.shape[1] / image.shape[1]
    picture = Image.fromarray(shown)
    draw = ImageDraw.Draw(picture)
    for color, found in boxes.items():
        if points:
            for x, y in centres(found) * scale:
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), outline=color, width=2)
            continue
        for outline in corners(as_oriented(found)) * scale:
            draw.line([tuple(p) for p in (*outline, outline[0])], fill=color, width=2)
    return np.asarray(picture)
