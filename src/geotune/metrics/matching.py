"""Match detections to objects: boxes by IoU, points by distance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.boxes.candidate_pairs import BoxIndex
from geotune.boxes.iou import paired_iou
from geotune.boxes.oriented import hull
from geotune.boxes.structures import Detections, GroundTruthObjects

Integers = NDArray[np.int64]
Floats = NDArray[np.float64]
FALSE, IGNORED = -1, -2
"""In place of an object's index: a false positive; a detection of a `difficult` object."""


def match_boxes(
    detections: Detections, objects: GroundTruthObjects, thresholds: Sequence[float]
) -> Integers:
    """The object matched by each detection of an image at each IoU threshold, `(N, T)`.

    Entries are object indices, `FALSE` or `IGNORED`. As in Pascal VOC and DOTA, each detection is
    compared with the object of its class with the highest IoU. Of the detections whose IoU with an
    object exceeds the threshold, the one with the highest score matches and the others are false;
    all detections of a difficult object are ignored. The number of detections is not limited.
    """
    best, overlap = _best_object(detections, objects)
    order = np.argsort(-detections.scores.numpy(force=True), kind="stable")
    difficult = objects.ignored().numpy(force=True)
    matches = np.full((len(order), len(thresholds)), FALSE, dtype=np.int64)
    for column, threshold in enumerate(thresholds):
        over = order[overlap[order] > threshold]
        firsts = over[np.unique(best[over], return_index=True)[1]]
        matches[firsts, column] = best[firsts]
        matches[over[difficult[best[over]]], column] = IGNORED
    return matches


def _best_object(detections: Detections, objects: GroundTruthObjects) -> tuple[Integers, Floats]:
    """The object of the same class with the highest IoU, and that IoU; -1 and 0 if none."""
    predicted, truth = detections.boxes.detach().cpu(), objects.boxes.detach().cpu()
    i, j = BoxIndex(hull(truth)).query(hull(predicted))
    same = detections.classes.cpu()[i] == objects.classes.cpu()[j]
    i, j = i[same], j[same]
    ious = paired_iou(predicted, truth, i, j).numpy()
    # By detection, then by descending IoU; ties go to the first object.
    order = np.lexsort((j.numpy(), -ious, i.numpy()))
    rows, firsts = np.unique(i.numpy()[order], return_index=True)
    best = np.full(len(predicted), -1, dtype=np.int64)
    overlap = np.zeros(len(predicted))
    best[rows], overlap[rows] = j.numpy()[order][firsts], ious[order][firsts]
    return best, overlap


def match_points(predicted: Floats, truth: Floats, radius: float) -> tuple[Integers, Integers]:
    """Match points `(N, 2)` one to one with `(M, 2)` within `radius`; indices of the pairs.

    The matching has the maximum number of pairs and, among those, the minimum sum of distances.
    """
    pairs: list[tuple[Integers, Integers]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    for rows, columns, distances in _components(predicted, truth, radius):
        i, j = _assign(distances)
        pairs.append((rows[i], columns[j]))
    return np.concatenate([i for i, _ in pairs]), np.concatenate([j for _, j in pairs])


def match_points_by_level(
    predicted: Floats, levels: Integers, truth: Floats, radius: float, count: int
) -> tuple[Floats, Floats]:
    """For each of `count` levels, the number of `match_points` pairs and their squared distances.

    Level `k` has the points of `predicted` whose entry in `levels` `(N)` is greater than `k`. Both
    results are `(count,)`. Only components that change between levels are matched again.
    """
    number, squares = np.zeros(count), np.zeros(count)
    for rows, _, distances in _components(predicted, truth, radius):
        row_levels = levels[rows]
        start = 0
        for end in np.unique(row_levels):
            if end == start:  # below all levels
                continue
            active = distances[row_levels >= end]
            i, j = _assign(active)
            number[start:end] += len(i)
            squares[start:end] += np.sum(active[i, j] ** 2)
            start = end
    return number, squares


def _components(
    predicted: Floats, truth: Floats, radius: float
) -> Iterator[tuple[Integers, Integers, Floats]]:
    """Connected components of points within `radius`: indices, and distances (inf if too far).

    Components are independent, so each is matched on its own with a small dense matrix.
    """
    from scipy.sparse import coo_array  # together half a second
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    near = KDTree(predicted).sparse_distance_matrix(KDTree(truth), radius, output_type="coo_matrix")
    rows, columns = near.row, near.col
    size = len(predicted) + len(truth)
    graph = coo_array((np.ones(len(rows)), (rows, columns + len(predicted))), shape=(size, size))
    label = connected_components(graph, directed=False)[1]
    order = np.argsort(label[rows], kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(label[rows][order])) + 1):
        mine, theirs = np.unique(rows[pairs]), np.unique(columns[pairs])
        distances = np.full((len(mine), len(theirs)), np.inf)
        distances[np.searchsorted(mine, rows[pairs]), np.searchsorted(theirs, columns[pairs])] = (
            near.data[pairs]
        )
        yield mine, theirs, distances


def _assign(distances: Floats) -> tuple[Integers, Integers]:
    """Maximum-cardinality, minimum-sum assignment of a distance matrix `(n, m)`."""
    from scipy.optimize import linear_sum_assignment

    close = np.isfinite(distances)
    # A pair that is too far costs more than any sum of distances can save.
    far = (np.max(distances, where=close, initial=0.0) + 1.0) * (min(distances.shape) + 1)
    i, j = linear_sum_assignment(np.where(close, distances, far))
    kept = close[i, j]
    return i[kept], j[kept]
