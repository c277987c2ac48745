from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.boxes.oriented import as_oriented, canonical
from geotune.boxes.polygons import to_polygons
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.annotations.object_target import ObjectTarget
from geotune.data.raster.orientation import orient
from geotune.data.raster.windows import Window, grid_windows

SIDE = 40


def labels(boxes: Any, classes: Any = None, difficult: Any = None, **options: Any) -> ObjectLabels:
    boxes = np.asarray(boxes, dtype=float)
    count = len(boxes)
    return ObjectLabels(
        path="objects",  # type: ignore[arg-type]  # no file is read
        classes=("ship", "crane"),
        shape=options.get("shape", (SIDE, SIDE)),
        boxes=boxes,
        indices=np.zeros(count, dtype=np.int64) if classes is None else np.array(classes),
        difficult=np.zeros(count, dtype=bool) if difficult is None else np.array(difficult),
        min_visibility=options.get("min_visibility", 0.5),
        overlaps=True,
    )


def rasterize(boxes: Any, shape: tuple[int, int], grown: float = 0.0) -> Any:
    """Masks `(N, H, W)` of the pixel centres in boxes whose sides are longer by `grown`."""
    rows, cols = np.mgrid[: shape[0], : shape[1]] + 0.5
    boxes = as_oriented(boxes) + np.array([0, 0, grown, grown, 0])
    return np.array([shapely.contains_xy(box, cols, rows) for box in to_polygons(boxes)])


oriented = st.tuples(
    st.floats(-5, SIDE + 5),
    st.floats(-5, SIDE + 5),
    st.floats(2, 30),
    st.floats(2, 30),
    st.floats(-4, 4),
)


@pytest.mark.parametrize("orientation", range(8))
@given(boxes=st.lists(oriented, min_size=1, max_size=4), height=st.integers(8, SIDE))
@settings(max_examples=15, deadline=None)
def test_oriented_boxes_rotate_and_flip_like_the_image(
    orientation: int, boxes: Any, height: int
) -> None:
    target = labels(canonical(np.array(boxes))).read(Window(0, 0, height, SIDE))
    turned = target.rotate90_flip(orientation)
    assert turned.valid.shape == orient(target.valid, orientation).shape
    # a pixel centre on an edge may be on either side
    lower, upper = (rasterize(turned.boxes, turned.valid.shape, grown) for grown in (-1e-6, 1e-6))
    masks = rasterize(target.boxes, (height, SIDE))
    for low, mask, high in zip(lower, masks, upper, strict=True):
        assert (low <= orient(mask, orientation)).all() and (
            orient(mask, orientation) <= high
        ).all()


@pytest.mark.parametrize("orientation", range(8))
def test_horizontal_boxes_rotate_and_flip_like_the_image(orientation: int) -> None:
    target = labels([[3, 5, 11, 8], [-4, 20, 6, 29]]).read(Window(0, 0, 30, SIDE))
    turned = target.rotate90_flip(orientation)
    expected = [orient(mask, orientation) for mask in rasterize(target.boxes, (30, SIDE))]
    assert (rasterize(turned.boxes, turned.valid.shape) == expected).all()
    assert (turned.counted == target.counted).all()


def test_boxes_are_not_clipped_and_count_if_half_visible() -> None:
    result = labels([[-4, 0, 6, 10], [-5, 0, 5, 10], [-6, 0, 4, 10], [50, 0, 60, 10]])
    target = result.read(Window(0, 0, 20, 20))
    assert target.boxes.tolist() == [[-4, 0, 6, 10], [-5, 0, 5, 10], [-6, 0, 4, 10]]
    assert target.counted.tolist() == [True, True, False]
    strict = labels(result.boxes, min_visibility=0.6).read(Window(0, 0, 20, 20))
    assert strict.counted.tolist() == [True, False, False]


@given(
    boxes=st.lists(
        st.tuples(
            st.integers(0, 8 * SIDE).map(lambda x: x / 8),
            st.integers(0, 8 * SIDE).map(lambda x: x / 8),
            st.integers(1, 20),
            st.integers(1, 20),
            st.sampled_from([0.0, 0.3, np.pi / 4, -1.2]),
        ),
        min_size=1,
        max_size=6,
    ),
    size=st.sampled_from([5, 8, 10, 20]),
)
@settings(max_examples=60, deadline=None)
def test_in_a_grid_every_object_has_one_position_and_counts_at_most_once(
    boxes: Any, size: int
) -> None:
    inside = np.array([box for box in boxes if box[0] < SIDE and box[1] < SIDE]).reshape(-1, 5)
    result = labels(canonical(inside))
    windows = [result.read(window) for window in grid_windows((SIDE, SIDE), size)]
    num_positions = sum(
        len(positions) for window in windows for _, positions in window.class_positions()
    )
    assert num_positions == len(inside)
    counted = sum(int(window.counted.sum()) for window in windows)
    assert counted == len(inside) - result.num_uncounted(size)


def test_object_cut_in_half_counts_in_one_window() -> None:
    result = labels([[5, 2, 15, 8], [5.1, 12.3, 14.9, 17.1]])
    windows = [result.read(window) for window in grid_windows((20, 20), 10)]
    assert [window.counted.tolist() for window in windows] == [[False], [True], [False], [True]]
    assert all(len(window.boxes) == 1 for window in windows)


def test_object_at_the_corner_of_four_windows_counts_in_none() -> None:
    result = labels([[6, 6, 14, 14]])
    windows = [result.read(window) for window in grid_windows((20, 20), 10)]
    assert not any(window.counted.any() for window in windows)
    assert result.num_uncounted(10) == 1 and result.num_uncounted(20) == 0
    assert labels(result.boxes, shape=(9, 9)).num_uncounted(20) == 1  # cut by the edge of the scene


def test_nodata_hides_objects_like_an_edge() -> None:
    target = labels([[0, 0, 10, 10], [4, 12, 14, 18], [12, 0, 18, 6]]).read(Window(0, 0, 20, 20))
    valid = np.ones((20, 20), dtype=bool)
    valid[:, :10] = False
    masked = target.masked(valid)
    assert masked.boxes.tolist() == [[4, 12, 14, 18], [12, 0, 18, 6]]
    assert masked.counted.tolist() == [False, True]
    assert (masked.label_mask(np.ones_like(valid)) == valid).all()
    assert [positions.tolist() for _, positions in masked.class_positions()] == [[3 * 20 + 15]]


def test_object_smaller_than_a_pixel_is_hidden_with_it() -> None:
    target = labels([[3.1, 3.1, 3.4, 3.4], [7.6, 7.6, 7.9, 7.9]]).read(Window(0, 0, 10, 10))
    valid = np.ones((10, 10), dtype=bool)
    valid[3, 3] = False
    assert target.masked(valid).boxes.tolist() == [[7.6, 7.6, 7.9, 7.9]]


def test_window_without_objects_is_background() -> None:
    target = labels([[30, 30, 35, 35]]).read(Window(0, 0, 10, 10))
    assert target.has_labels and not len(target.boxes) and not list(target.class_positions())
    assert not target.masked(np.zeros((10, 10), dtype=bool)).has_labels
    assert not len(labels(np.zeros((0, 5))).read(Window(0, 0, 10, 10)).boxes)


def test_difficult_objects_have_no_class_position() -> None:
    result = labels([[0, 0, 4, 4], [5, 5, 9, 9]], classes=[1, 1], difficult=[True, False])
    target = result.read(Window(0, 0, 10, 10))
    assert [(index, positions.tolist()) for index, positions in target.class_positions()] == [
        (1, [77])
    ]
    assert target.counted.tolist() == [False, True]


def test_stack_returns_tensors_per_window() -> None:
    import torch

    result = labels([[0, 0, 4, 4], [8, 1, 12, 3]], classes=[1, 0])
    stacked = ObjectTarget.stack(
        [result.read(w) for w in (Window(0, 0, 9, 9), Window(20, 20, 9, 9))]
    )
    first, second = stacked
    assert first["boxes"].dtype == torch.float32 and first["labels"].tolist() == [1, 0]
    assert first["difficult"].tolist() == [False, True]
    assert second["boxes"].shape == (0, 4) and second["labels"].dtype == torch.int64
    assert stacked[1:2] == [second]
