"""Backbone, decoder, window and batch for the data and the memory of this machine."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.api.init.draft import Draft
from geotune.api.init.splits import SHARE
from geotune.api.recipes import OnMessage
from geotune.boxes.oriented import as_oriented
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.raster.open_raster import ALPHA
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene

WINDOWS = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
WHOLE = 256
"""Images up to this side are trained whole, larger ones in windows of half that side."""

OBJECTS_ACROSS = 4
"""Sides of a large object in a window, at least."""

MEMORY_SHARE = 0.7
"""Of the free memory, for the tensors of a training step."""

SMALL_OBJECT_PX = 16

EPOCH_PIXELS = 2**24
"""Of the training windows of an epoch: `EPOCHS` of them take minutes on one slow core, which needs
2 to 5 s for a million pixels with the backbone that is set here."""

VALIDATION_PIXELS = 2**22
EPOCHS = 20


def set_backbone(draft: Draft, backbone: str | None, bands: Sequence[str]) -> None:
    """Set the backbone and the method: the given one, or one that needs no download."""
    from geotune.backbones.bands import canonical_band  # imports torch
    from geotune.backbones.embedded.convnext_mini import BANDS

    known = [band for band in bands if canonical_band(band) in BANDS]
    if backbone is not None:
        draft.set("backbone.name", backbone)
    elif known:
        draft.set(
            "backbone.name",
            "geotune/convnext_mini",
            "small, its pretrained weights are part of geotune; larger ones for your bands: "
            "geotune list backbones, or geotune init --backbone NAME",
        )
        if len(known) < len(bands):
            others = ", ".join(band for band in bands if band not in known)
            draft.set("backbone.new_bands", "mean", f"the pretrained weights do not know {others}")
    else:
        draft.set(
            "backbone.name",
            "timm/resnet18",
            "random weights: name the bands (data.bands, or geotune init --bands) for pretrained "
            "ones, or choose a backbone for your bands (geotune list backbones)",
        )
        draft.set("backbone.pretrained", False)
    draft.set("backbone.bands", list(bands), draft.comments.get("backbone.bands", ""))
    draft.set("method.kind", "est", "side network beside the frozen backbone: geotune list methods")
    draft.set("method.reduction", 8)


def set_decoder(draft: Draft, scenes: Sequence[Scene]) -> None:
    """Set the decoder and the options that belong to the task."""
    task = draft.values["task"]
    if task.get("level") == "image" or task["kind"] == "classify":
        draft.set("decoder.kind", "global_pool")
        return
    if task["kind"] != "detect":
        draft.set("decoder.kind", "unet")
        draft.set("decoder.channels", [64, 48, 32, 16])
        return
    points, oriented = (task["boxes"] == kind for kind in ("points", "oriented"))
    draft.set("decoder.kind", "rotated_fcos" if oriented else "fcos")
    draft.set("decoder.channels", 64)
    draft.set("decoder.depth", 1 if points else 2)
    sides = object_sides(scenes)
    middle = float(np.median(np.sqrt(sides.prod(axis=1)))) if len(sides) else math.inf
    draft.set(
        "decoder.min_stride",
        2 if middle < SMALL_OBJECT_PX and not points else 4,
        f"objects cover {middle:.0f} x {middle:.0f} px, at the median" if len(sides) else "",
    )
    draft.set("decoder.num_levels", 1 if points else 4)
    if oriented:
        draft.set("data.augment", {"rotate": 45}, "boxes are at any angle")


def set_window(draft: Draft, scenes: Sequence[Scene]) -> int:
    """Set the window: whole images if they are small, else a few times the largest objects."""
    shapes = np.array([scene.shape for scene in scenes])
    if scenes[0].labels.image_level:
        return int(shapes.max())  # images with one label are not cut
    smallest, largest = int(shapes.min()), int(shapes.max())
    if largest <= WHOLE:
        draft.set("data.window", largest, "the whole image")
        return largest
    wanted, comment = WHOLE // 2, "side of the windows that scenes are cut into, in pixels"
    sides = object_sides(scenes)
    if len(sides):
        large = float(np.percentile(sides.max(axis=1), 95))
        wanted = max(wanted, math.ceil(OBJECTS_ACROSS * large))
        comment += f"; large objects are {large:.0f} px"
    fitting = [size for size in WINDOWS if size <= max(smallest, WINDOWS[0])]
    window = next((size for size in fitting if size >= wanted), fitting[-1])
    draft.set("data.window", window, comment)
    return window


def object_sides(scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """The sides of each object in pixels, `(N, 2)`."""
    sides = [
        as_oriented(scene.labels.boxes)[:, 2:4]
        for scene in scenes
        if isinstance(scene.labels, ObjectLabels) and len(scene.labels.boxes)
    ]
    return np.concatenate(sides) if sides else np.zeros((0, 2))


def name_bands(draft: Draft, rasters: Sequence[RasterSource]) -> Sequence[str]:
    """The bands of the files; sets `data.bands` if the files do not name them."""
    first = rasters[0]
    if first.named:
        return first.bands
    count = len(first.bands)
    names = [f"band{i}" for i in range(1, count + 1)]
    comment = "the files do not name their bands: set names that the backbone knows"
    if count in (3, 4):
        names = ["red", "green", "blue"]
        if count == 4:
            names.append("alpha" if _is_alpha(first) else "nir")
        comment = "the files do not name their bands: check this order"
    elif count == 1:
        names, comment = ["grey"], "the only band"
    draft.set("data.bands", names, comment)
    return [name for name in names if name != ALPHA]


def _is_alpha(raster: RasterSource) -> bool:
    """Whether the last band holds only 0 and 255, in the middle of the image."""
    height, width = (min(256, side) for side in raster.shape)
    top, left = (
        (side - size) // 2 for side, size in zip(raster.shape, (height, width), strict=True)
    )
    values = raster.read(Window(top, left, height, width), raster.bands[-1:])
    return set(np.unique(values[~np.isnan(values)]).tolist()) <= {0.0, 255.0}


def set_length(draft: Draft, scenes: Sequence[Scene], window: int) -> None:
    """Set the epochs, and limit their windows where scenes are many or large."""
    draft.set("train.epochs", EPOCHS)
    pixels = sum(math.prod(scene.shape) for scene in scenes)
    train = (1 - 2 * SHARE) * pixels
    if train > EPOCH_PIXELS:
        draft.set(
            "data.samples",
            max(8, EPOCH_PIXELS // window**2),
            f"windows per epoch, so that a first training takes minutes on a CPU; all training "
            f"images are about {train / window**2:,.0f}: remove this line to cover them",
        )
    if SHARE * pixels > VALIDATION_PIXELS:
        draft.set(
            "train.validation_windows",
            max(8, VALIDATION_PIXELS // window**2),
            "on which epochs are compared; the results of the best one are of all windows",
        )


def set_training(draft: Draft, on_message: OnMessage) -> None:
    """Set the batch size, and what else is needed to fit the free memory."""
    batch = 32 if draft.recipe().task.level == "image" else 8
    draft.set("train.batch_size", batch, "windows per step")
    draft.set("train.lr", 0.003)
    from geotune.api.environment import pick_device  # imports torch
    from geotune.api.planning import plan
    from geotune.report.number_format import size
    from geotune.training.memory_adaptation import free_memory

    free = free_memory(pick_device("auto"))
    if free is None:
        return
    on_message("estimating the memory of a training step")
    budget = int(MEMORY_SHARE * free)
    found = plan(draft.recipe())
    estimate = found.prediction
    needed = estimate.total_gpu_bytes if found.on_gpu else estimate.cpu.total
    comment = ""
    if needed > budget:
        limited = plan(draft.recipe(), budget=budget, alternatives=False).budget
        assert limited is not None
        best = limited.proposals[0] if limited.proposals else limited.smallest
        needed = best.bytes
        for key, value in best.changes.items():
            section, _, name = key.partition(".")
            if name:
                draft.set(key, value)
            else:
                draft.values[section] = dict(value)
        comment = f"; chosen to fit: {', '.join(best.changes)}"
        if not limited.proposals:
            comment = "; no setting fits: choose a smaller data.window"
    draft.comments["train.batch_size"] = (
        f"windows per step, which needs {size(needed)} of {size(free)} that are free{comment}"
    )
