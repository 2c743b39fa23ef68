"""Quadratic models of a loss within bounds: their curvature, learnt from slopes, and their lowest point.

All sums are numpy's own and none are BLAS's, whose results can depend on its threads: a replayed search must ask the same.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
SWEEPS = 300
CLOSE = 1e-10  # of the widest step: far below what any search can tell apart
SLACK = 1e-6  # how far from its measured value a fitted quadratic may pass a near point, as a share of the coefficients' own scale


def dot(a: Vector, b: Vector) -> float:
    """The inner product."""
    return float((a * b).sum())


class Curvature:
    """The second derivatives of a loss, as far as differences of its slopes show them; always positive definite.

    BFGS updates, damped where the loss bends downwards (Powell; Nocedal and Wright, Numerical Optimization, procedure 18.2),
    from a multiple of the identity: the length of the latest change divided by that of its step. That lies between the two
    customary choices, step * change / step^2, which took steps that were too wide, and change^2 / step * change, which took
    many small ones.
    """

    def __init__(self) -> None:
        self._pairs: list[tuple[Vector, Vector]] = []

    def learn(self, step: Vector, change: Vector) -> None:
        """Take in that the slope of the loss changes by `change` along `step`, both measured on the same examples."""
        if dot(step, step) > 0:
            self._pairs.append((step, change))

    def matrix(self, first: float, count: int) -> Vector:
        """The estimate, (count, count). `first` stands for the multiple of the identity as long as nothing was learnt."""
        bends = [math.sqrt(dot(change, change) / dot(step, step)) for step, change in self._pairs if dot(step, change) > 0]
        found = np.eye(count) * (bends[-1] if bends else first or 1.0)
        for step, change in self._pairs:
            along = (found * step).sum(axis=1)
            bend, known = dot(step, change), dot(step, along)
            if bend < 0.2 * known:
                keep = 0.8 * known / (known - bend)
                change = keep * change + (1 - keep) * along
            found = found - np.outer(along, along) / known + np.outer(change, change) / dot(step, change)
        return found


def lowest(slope: Vector, curvature: Vector, low: Vector, high: Vector) -> Vector:
    """The step d with low <= d <= high that makes slope d + d curvature d / 2 small: the lowest point if the curvature is positive.

    One coordinate after the other goes to its lowest place until none moves. Where a coordinate bends downwards, that is
    one of its ends, and the point found is lower than d = 0 but need not be the lowest one.
    """
    step = np.clip(np.zeros_like(slope), low, high)
    rest = slope + (curvature * step).sum(axis=1)
    widest = float((high - low).max(initial=0.0))
    for _ in range(SWEEPS):
        moved = 0.0
        for i, bend in enumerate(curvature.diagonal()):
            if bend > 0:
                wanted = min(max(step[i] - rest[i] / bend, low[i]), high[i])
            else:
                ends = (low[i] - step[i], high[i] - step[i])
                wanted = step[i] + min(ends, key=lambda by: rest[i] * by + bend * by * by / 2)
            by = wanted - step[i]
            if by:
                step[i] = wanted
                rest += curvature[i] * by
                moved = max(moved, abs(by))
        if moved <= CLOSE * widest:
            break
    return step


def gain(slope: Vector, curvature: Vector, step: Vector) -> float:
    """By how much the model falls along the step."""
    return -dot(slope, step) - dot(step, (curvature * step).sum(axis=1)) / 2


def fitted(steps: Vector, rises: Vector) -> tuple[Vector, Vector]:
    """The slope and the curvature at 0 of the quadratic that is 0 there and rises by `rises` along `steps`.

    The coefficients are those that are smallest, each by its prior: interactions are held to be smaller than the bend of
    one coordinate, the more so the more coordinates there are. Steps far beyond 1 need not be met closely.

    Args:
        steps: (points, coordinates), in units of the box, so that the near ones are within 1.
        rises: (points,), what was measured.
    """
    points, count = steps.shape
    inner, alone = np.zeros((points, points)), np.zeros((points, points))
    for column in steps.T:
        product = np.outer(column, column)
        inner += product
        alone += product * product
    slack = SLACK * (1 + (steps * steps).mean(axis=1)) ** 3
    factors = _solved(inner + alone + (inner * inner - alone) / count + np.diag(slack), rises)
    bend = np.zeros((count, count))
    for factor, step in zip(factors, steps, strict=True):
        bend += 2 * factor * np.outer(step, step)
    return (factors[:, None] * steps).sum(axis=0), np.where(np.eye(count) > 0, bend, bend / count)


def _solved(matrix: Vector, right: Vector) -> Vector:
    """The x with matrix x = right, for a positive definite matrix, by elimination."""
    matrix, right = matrix.copy(), right.copy()
    for i in range(len(right)):
        share = matrix[i + 1 :, i] / matrix[i, i]
        matrix[i + 1 :, i:] -= np.outer(share, matrix[i, i:])
        right[i + 1 :] -= share * right[i]
    for i in reversed(range(len(right))):
        right[i] = (right[i] - (matrix[i, i + 1 :] * right[i + 1 :]).sum()) / matrix[i, i]
    return right


def vector(values: Iterable[float]) -> Vector:
    """Numbers as a vector of float64."""
    return np.array([*values], dtype=np.float64)
