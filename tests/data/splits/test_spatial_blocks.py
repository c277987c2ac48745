"""Spatial blocks: scenes closer than the buffer are never in different splits."""

from itertools import combinations

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geotune.config.split_options import BlockSplitOptions
from geotune.data.scenes.footprints import footprint, group_distance
from geotune.data.splits.spatial_blocks import split_by_blocks
from geotune.errors import GeotuneError
from helpers.errors import raises
from helpers.lazy_scenes import names, scene


@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 500), st.integers(20, 100), st.integers(0, 19), st.integers(0, 9), st.booleans()
)
def test_blocks_of_a_scene_are_at_least_the_buffer_apart(
    size: int, side: int, buffer: int, seed: int, metres: bool
) -> None:
    """Without a buffer, the blocks cover every pixel exactly once."""
    widths = [f"{10 * w} m" if metres else f"{w} px" for w in (side, buffer)]
    if size // side < 2:
        side = size // 2
        widths[0] = f"{side} px"
    splits = split_by_blocks(
        [scene("a", side=size)],
        BlockSplitOptions(side=widths[0], buffer=widths[1], val=0.3, test=0.3, seed=seed),
    )
    blocks = [one for members in splits.values() for one in members]
    assert len({one.name for one in blocks}) == len(blocks) == (size // side) ** 2
    for one, other in combinations([block.raster.area for block in blocks], 2):
        assert one is not None and other is not None
        down = max(one.row - other.row - other.height, other.row - one.row - one.height)
        across = max(one.col - other.col - other.width, other.col - one.col - one.width)
        assert max(down, across) >= buffer
    if not buffer:
        assert (
            sum(p.raster.area.height * p.raster.area.width for p in blocks if p.raster.area)
            == size**2
        )
        assert min(min(p.shape) for p in blocks) >= side


def test_blocks_have_locations() -> None:
    splits = split_by_blocks(
        [scene("a", side=400)], BlockSplitOptions(side="100 px", buffer="200 m", seed=1)
    )
    shapes = {
        split: [area for scene in members if (area := footprint(scene))]
        for split, members in splits.items()
    }
    for one, other in combinations(shapes, 2):
        result = group_distance(shapes[one], shapes[other])
        assert result is not None and result.distance_m >= 199 and not result.overlaps


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.sampled_from(["0 m", "100 m", "300 m"]))
def test_chips_of_different_splits_are_at_least_the_buffer_apart(seed: int, buffer: str) -> None:
    chips = [
        scene(f"c{i}{j}", 640 * i, 640 * j, image_level=True) for i in range(7) for j in range(7)
    ]
    try:
        splits = split_by_blocks(
            chips, BlockSplitOptions(side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
        )
    except GeotuneError:  # the buffer may leave a split empty
        assume(False)
    again = split_by_blocks(
        chips[::-1], BlockSplitOptions(side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
    )
    assert {p: set(n) for p, n in names(splits).items()} == {
        p: set(n) for p, n in names(again).items()
    }
    groups = [{one.group for one in members} for members in splits.values()]
    assert not any(one & other for one, other in combinations(groups, 2))
    minimum = float(buffer.split()[0])
    located = [
        [area for scene in members if (area := footprint(scene))] for members in splits.values()
    ]
    for one, other in combinations(located, 2):
        result = group_distance(one, other)
        assert result is None or result.distance_m >= 0.999 * minimum
    if not minimum:
        assert sum(map(len, splits.values())) == len(chips)


def test_blocks_without_location_or_pixels_are_rejected() -> None:
    with raises("metadata-missing", key="data.split.side", file="c.tif"):
        split_by_blocks(
            [scene("c", georeferenced=False), scene("d")], BlockSplitOptions(side="100 px")
        )
    with raises("metadata-missing", key="data.split", file="c.tif"):
        split_by_blocks([scene("c", georeferenced=False)], BlockSplitOptions(side="100 m"))
    with raises("split-buffer", key="data.split.buffer", mentions=["30 px"]):
        split_by_blocks([scene("a", side=90)], BlockSplitOptions(side="30 px", buffer="30 px"))
