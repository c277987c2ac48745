import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from geotune.data.raster.windows import Window, grid_windows

sizes = st.integers(1, 40)


@given(st.tuples(sizes, sizes), sizes)
def test_grid_covers_every_pixel_once(shape: tuple[int, int], size: int) -> None:
    seen = np.zeros(shape, dtype=int)
    for window in grid_windows(shape, size):
        assert (window.height, window.width) == (size, size)
        inner = window.clip(shape)
        assert inner is not None
        seen[inner.slices_in(Window(0, 0, *shape))] += 1
    assert (seen == 1).all()


@given(
    st.tuples(sizes, sizes),
    st.builds(Window, st.integers(-50, 50), st.integers(-50, 50), sizes, sizes),
)
def test_clip_is_the_intersection(shape: tuple[int, int], window: Window) -> None:
    rows = set(range(window.row, window.row + window.height)) & set(range(shape[0]))
    cols = set(range(window.col, window.col + window.width)) & set(range(shape[1]))
    inner = window.clip(shape)
    if not rows or not cols:
        assert inner is None
    else:
        assert inner == (min(rows), min(cols), len(rows), len(cols))
        where = np.zeros((window.height, window.width))[inner.slices_in(window)]
        assert where.shape == (len(rows), len(cols))
