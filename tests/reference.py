"""Slow merge methods in numpy float64, written from the equations of the papers and independent of the package.

Each takes the base, the experts and the parameters, and returns the merged array.
"""

import numpy as np


def linear(base, experts, *, weight, normalize=True):
    """arXiv:2203.05482: a weighted average of all models."""
    models = [base, *experts]
    total = sum(w * m for w, m in zip(weight, models, strict=True))
    return total / sum(weight) if normalize else total


def task_arithmetic(base, experts, *, weight):
    """arXiv:2212.04089, section 2."""
    return base + sum(w * (e - base) for w, e in zip(weight, experts, strict=True))


def trim(delta, density):
    """arXiv:2306.01708, algorithm 1, step 1: keep the largest entries, the first among equals."""
    keep = round(density * delta.size)
    order = sorted(range(delta.size), key=lambda i: (-abs(delta.flat[i]), i))
    out = np.zeros_like(delta)
    for i in order[:keep]:
        out.flat[i] = delta.flat[i]
    return out


def disjoint(deltas, weight, normalize):
    """Steps 2 and 3, one entry at a time: elect the sign with more mass, then join those that agree."""
    out = np.zeros_like(deltas[0])
    for i in range(out.size):
        values = [(w, w * d.flat[i]) for w, d in zip(weight, deltas, strict=True)]
        sign = 1 if sum(v for _, v in values) >= 0 else -1
        agreeing = [(w, v) for w, v in values if v * sign > 0]
        total = sum(v for _, v in agreeing)
        out.flat[i] = total / sum(w for w, _ in agreeing) if normalize and agreeing else total
    return out


def ties(base, experts, *, weight, density, lambda_=1.0, normalize=True):
    """arXiv:2306.01708, algorithm 1."""
    trimmed = [trim(e - base, d) for e, d in zip(experts, density, strict=True)]
    return base + lambda_ * disjoint(trimmed, weight, normalize)


def slerp(base, experts, *, t):
    """Shoemake 1985: constant speed along the great circle between the flattened tensors."""
    (end,) = experts
    norms = np.linalg.norm(base) * np.linalg.norm(end)
    if norms == 0 or abs(np.vdot(base, end) / norms) > 0.9995:
        return (1 - t) * base + t * end
    angle = np.arccos(np.vdot(base, end) / norms)
    return (np.sin((1 - t) * angle) * base + np.sin(t * angle) * end) / np.sin(angle)
