"""Blocks: what is nearer than the buffer is never in two parts."""

from itertools import combinations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from geotune.data.scenes.footprints import footprint, group_distance
from geotune.data.splits.spatial_blocks import split_by_blocks
from geotune.errors import GeotuneError
from helpers.lazy_scenes import names, scene


@settings(max_examples=60, deadline=None)
@given(
    st.integers(60, 500), st.integers(20, 100), st.integers(0, 19), st.integers(0, 9), st.booleans()
)
def test_blocks_of_a_scene_keep_the_buffer(
    size: int, side: int, buffer: int, seed: int, metres: bool
) -> None:
    """No two pieces come nearer than the buffer, and without one they cover every pixel once."""
    widths = [f"{10 * w} m" if metres else f"{w} px" for w in (side, buffer)]
    if size // side < 2:
        side = size // 2
        widths[0] = f"{side} px"
    parts = split_by_blocks(
        [scene("a", side=size)], side=widths[0], buffer=widths[1], val=0.3, test=0.3, seed=seed
    )
    pieces = [one for members in parts.values() for one in members]
    assert len({one.name for one in pieces}) == len(pieces) == (size // side) ** 2
    for one, other in combinations([piece.raster.area for piece in pieces], 2):
        assert one is not None and other is not None
        down = max(one.row - other.row - other.height, other.row - one.row - one.height)
        across = max(one.col - other.col - other.width, other.col - one.col - one.width)
        assert max(down, across) >= buffer
    if not buffer:
        assert (
            sum(p.raster.area.height * p.raster.area.width for p in pieces if p.raster.area)
            == size**2
        )
        assert min(min(p.shape) for p in pieces) >= side


def test_pieces_know_where_they_lie() -> None:
    parts = split_by_blocks([scene("a", side=400)], side="100 px", buffer="200 m", seed=1)
    shapes = {
        part: [place for one in members if (place := footprint(one))]
        for part, members in parts.items()
    }
    for one, other in combinations(shapes, 2):
        found = group_distance(shapes[one], shapes[other])
        assert found is not None and found.distance_m >= 199 and not found.overlaps


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 20), st.sampled_from(["0 m", "100 m", "300 m"]))
def test_chips_of_two_parts_keep_the_buffer(seed: int, buffer: str) -> None:
    chips = [scene(f"c{i}{j}", 640 * i, 640 * j, whole=True) for i in range(7) for j in range(7)]
    try:
        parts = split_by_blocks(chips, side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
    except GeotuneError:  # the buffer may take all that a part has
        assume(False)
    again = split_by_blocks(chips[::-1], side="2000 m", buffer=buffer, val=0.3, test=0.3, seed=seed)
    assert {p: set(n) for p, n in names(parts).items()} == {
        p: set(n) for p, n in names(again).items()
    }
    groups = [{one.group for one in members} for members in parts.values()]
    assert not any(one & other for one, other in combinations(groups, 2))
    least = float(buffer.split()[0])
    shapes = [[place for one in members if (place := footprint(one))] for members in parts.values()]
    for one, other in combinations(shapes, 2):
        found = group_distance(one, other)
        assert found is None or found.distance_m >= 0.999 * least
    if not least:
        assert sum(map(len, parts.values())) == len(chips)


def test_chips_without_a_place_have_no_block() -> None:
    with pytest.raises(GeotuneError, match=r"c\.tif: is no larger than a block .* where it lies"):
        split_by_blocks([scene("c", placed=False), scene("d")], side="100 px")
    with pytest.raises(GeotuneError, match=r"c\.tif: does not say how large its pixels are"):
        split_by_blocks([scene("c", placed=False)], side="100 m")
    with pytest.raises(GeotuneError, match=r"buffer 30 px: leaves nothing of the blocks of 30 px"):
        split_by_blocks([scene("a", side=90)], side="30 px", buffer="30 px")
