"""Which detection found which object: by overlap for boxes, by distance for points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.boxes.candidate_pairs import Neighbours
from geotune.boxes.iou import paired_iou
from geotune.boxes.oriented import hull
from geotune.boxes.structures import Detections, GroundTruthObjects

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
FALSE, IGNORED = -1, -2


def match_boxes(
    detections: Detections, objects: GroundTruthObjects, thresholds: Sequence[float]
) -> Integers:
    """For each detection of an image and each IoU threshold what it found, `(N, T)`.

    It is the index of the object, or `FALSE`, or `IGNORED`. As in Pascal VOC and DOTA: every
    detection is held against the object of its class that it overlaps most. Where their IoU is
    above the threshold, the detection of the highest score has found it, and others of it are
    false; those of a difficult object are ignored, however many. No detection is too many.
    """
    best, overlap = _best_object(detections, objects)
    order = np.argsort(-detections.scores.numpy(force=True), kind="stable")
    difficult = objects.ignored().numpy(force=True)
    found = np.full((len(order), len(thresholds)), FALSE, dtype=np.int64)
    for column, threshold in enumerate(thresholds):
        over = order[overlap[order] > threshold]
        firsts = over[np.unique(best[over], return_index=True)[1]]
        found[firsts, column] = best[firsts]
        found[over[difficult[best[over]]], column] = IGNORED
    return found


def _best_object(detections: Detections, objects: GroundTruthObjects) -> tuple[Integers, Floats]:
    """The object of its class that each detection overlaps most, and their IoU; -1 and 0: none."""
    found, truth = detections.boxes.detach().cpu(), objects.boxes.detach().cpu()
    i, j = Neighbours(hull(truth)).of(hull(found))
    same = detections.classes.cpu()[i] == objects.classes.cpu()[j]
    i, j = i[same], j[same]
    ious = paired_iou(found, truth, i, j).numpy()
    # The highest IoU of each detection comes first, of equal ones the first object's.
    order = np.lexsort((j.numpy(), -ious, i.numpy()))
    rows, firsts = np.unique(i.numpy()[order], return_index=True)
    best = np.full(len(found), -1, dtype=np.int64)
    overlap = np.zeros(len(found))
    best[rows], overlap[rows] = j.numpy()[order][firsts], ious[order][firsts]
    return best, overlap


def match_points(found: Floats, truth: Floats, radius: float) -> tuple[Integers, Integers]:
    """Pairs of points `(N, 2)` and `(M, 2)`, one to one, at most `radius` apart: their indices.

    As many pairs as there can be, and of those choices the one with the least sum of distances.
    """
    pairs: list[tuple[Integers, Integers]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for mine, theirs, apart in _groups(found, truth, radius):
        i, j = _pairs(apart)
        pairs.append((mine[i], theirs[j]))
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def match_points_by_level(
    found: Floats, levels: Integers, truth: Floats, radius: float, count: int
) -> tuple[Floats, Floats]:
    """For each of `count` levels how many pairs `match_points` gives, and their squared distances.

    A level has the points of `found` whose number in `levels` `(N)` is greater than its own. Both
    results are `(count,)`. Only what changes from level to level is matched again.
    """
    number, squares = np.zeros(count), np.zeros(count)
    for mine, _, apart in _groups(found, truth, radius):
        its = levels[mine]
        start = 0
        for end in np.unique(its):
            if end == start:  # on no level
                continue
            there = apart[its >= end]
            i, j = _pairs(there)
            number[start:end] += len(i)
            squares[start:end] += np.sum(there[i, j] ** 2)
            start = end
    return number, squares


def _groups(
    found: Floats, truth: Floats, radius: float
) -> Iterator[tuple[Integers, Integers, Floats]]:
    """Points that chains of neighbours join: their indices, and distances, infinite if too far.

    No pair is of two groups, so each is matched by itself: what is dense stays small.
    """
    from scipy.sparse import coo_array  # together half a second
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    near = KDTree(found).sparse_distance_matrix(KDTree(truth), radius, output_type="coo_matrix")
    rows, columns = near.row, near.col
    size = len(found) + len(truth)
    graph = coo_array((np.ones(len(rows)), (rows, columns + len(found))), shape=(size, size))
    group = connected_components(graph, directed=False)[1]
    order = np.argsort(group[rows], kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(group[rows][order])) + 1):
        mine, theirs = np.unique(rows[part]), np.unique(columns[part])
        apart = np.full((len(mine), len(theirs)), np.inf)
        apart[np.searchsorted(mine, rows[part]), np.searchsorted(theirs, columns[part])] = (
            near.data[part]
        )
        yield mine, theirs, apart


def _pairs(apart: Floats) -> tuple[Integers, Integers]:
    """Rows and columns of most pairs, and of those with the least sum, of distances `(n, m)`."""
    from scipy.optimize import linear_sum_assignment

    close = np.isfinite(apart)
    # No sum of distances is worth a pair less.
    far = (np.max(apart, where=close, initial=0.0) + 1.0) * (min(apart.shape) + 1)
    i, j = linear_sum_assignment(np.where(close, apart, far))
    kept = close[i, j]
    return i[kept], j[kept]
