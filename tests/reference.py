"""Slow merge methods in numpy float64, written from the equations of the papers and independent of the package.

Each takes the base, the experts and the parameters, and returns the merged array.
"""

import numpy as np


def linear(base, experts, *, weight, normalize=True):
    """arXiv:2203.05482: a weighted average of all models."""
    models = [base, *experts]
    total = sum(w * m for w, m in zip(weight, models, strict=True))
    return total / sum(weight) if normalize else total


def passthrough(base, experts, *, scale=1.0):
    """The base, scaled."""
    return scale * base


def add_up(deltas, weight, normalize):
    """A weighted sum, or average."""
    total = sum(w * d for w, d in zip(weight, deltas, strict=True))
    return total / sum(weight) if normalize else total


def task_arithmetic(base, experts, *, weight, lambda_=1.0, normalize=False):
    """arXiv:2212.04089, section 2."""
    return base + lambda_ * add_up([e - base for e in experts], weight, normalize)


def largest_first(values):
    """Indices from the largest magnitude to the smallest, the first among equals first."""
    return sorted(range(values.size), key=lambda i: (-abs(values.flat[i]), i))


def keep(values, chosen):
    """The values at the chosen indices, and zero elsewhere."""
    out = np.zeros_like(values)
    for i in chosen:
        out.flat[i] = values.flat[i]
    return out


def trim(delta, density):
    """arXiv:2306.01708, algorithm 1, step 1."""
    return keep(delta, largest_first(delta)[: round(density * delta.size)])


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


def crumbs(delta, density, gamma):
    """arXiv:2312.06795: without the largest and the smallest entries."""
    kept, left_out = round(density * delta.size), round(gamma * delta.size)
    first = min(left_out, delta.size - kept)
    return keep(delta, largest_first(delta)[first : first + kept])


def breadcrumbs(base, experts, *, weight, density, gamma, lambda_=1.0, normalize=False):
    """arXiv:2312.06795."""
    kept = [crumbs(e - base, d, g) for e, d, g in zip(experts, density, gamma, strict=True)]
    return base + lambda_ * add_up(kept, weight, normalize)


def breadcrumbs_ties(base, experts, *, weight, density, gamma, lambda_=1.0, normalize=True):
    """The same, then steps 2 and 3 of TIES."""
    kept = [crumbs(e - base, d, g) for e, d, g in zip(experts, density, gamma, strict=True)]
    return base + lambda_ * disjoint(kept, weight, normalize)


def sce(base, experts, *, density, normalize=True):
    """arXiv:2408.07990: select, calculate, erase."""
    deltas = [e - base for e in experts]
    variance = np.var(np.stack(deltas), axis=0)
    chosen = largest_first(variance)[: round(density * base.size)]
    deltas = [keep(d, chosen) for d in deltas]
    squares = [float((d**2).sum()) for d in deltas]
    eta = [s / sum(squares) if sum(squares) else 1 / len(deltas) for s in squares]
    out = np.zeros_like(base)
    for i in range(out.size):
        sign = 1 if sum(d.flat[i] for d in deltas) >= 0 else -1
        agreeing = [(w, d.flat[i]) for w, d in zip(eta, deltas, strict=True) if d.flat[i] * sign > 0]
        total = sum(w * v for w, v in agreeing)
        out.flat[i] = total / sum(w for w, _ in agreeing) if normalize and agreeing else total
    return base + out


def cosine(a, b):
    """0 when either has no length."""
    lengths = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.vdot(a, b)) / lengths if lengths else 0.0


def model_stock(base, experts, *, filter_wise=False):
    """arXiv:2403.19522, one layer, or one row, at a time."""
    if filter_wise and base.ndim > 1:
        rows = [base.reshape(-1, base.shape[-1]), *(e.reshape(-1, base.shape[-1]) for e in experts)]
        return np.stack([model_stock(b, es) for b, *es in zip(*rows, strict=True)]).reshape(base.shape)
    count = len(experts)
    pairs = [(i, j) for i in range(count) for j in range(i)]
    cos = max(0.0, sum(cosine(experts[i] - base, experts[j] - base) for i, j in pairs) / len(pairs))
    t = count * cos / (1 + (count - 1) * cos)
    return t * sum(experts) / count + (1 - t) * base


def arc(start, end, t):
    """Shoemake 1985: constant speed along the great circle between the flattened tensors."""
    cos = cosine(start, end)
    if not start.any() or not end.any() or abs(cos) > 0.9995:
        return (1 - t) * start + t * end
    angle = np.arccos(cos)
    return (np.sin((1 - t) * angle) * start + np.sin(t * angle) * end) / np.sin(angle)


def slerp(base, experts, *, t):
    """From the base to the expert."""
    return arc(base, experts[0], t)


def direction(point):
    """A vector of length 1, or 0."""
    length = np.linalg.norm(point)
    return point / length if length else 0 * point


def multislerp(base, experts, *, weight, normalize=True, origin="zero"):
    """As mergekit's documentation tells it: to the tangent space at the mean direction, average there, and back."""
    center = base if origin == "base" else np.zeros_like(base)
    points = [m - center for m in (base, *experts)]
    shares = [w / sum(weight) if normalize else w for w in weight]
    mean = sum(w * direction(p) for w, p in zip(shares, points, strict=True))
    if np.linalg.norm(mean) <= 1e-7 * sum(shares):
        return center + sum(w * p for w, p in zip(shares, points, strict=True))
    mean = direction(mean)
    tangent = sum(w * (direction(p) - np.vdot(direction(p), mean) * mean) for w, p in zip(shares, points, strict=True))
    step = np.linalg.norm(tangent)
    found = np.cos(step) * mean + np.sin(step) * direction(tangent)
    return center + found * sum(w * np.linalg.norm(p) for w, p in zip(shares, points, strict=True))


def karcher(base, experts, *, weight):
    """Gradient descent on the sphere for the sum of squared angles, until it stands still."""
    models = [base, *experts]
    shares = [w / sum(weight) for w in weight]
    pull = [(w, direction(m)) for w, m in zip(shares, models, strict=True) if m.any() and w > 0]
    mean = direction(sum((w * u for w, u in pull), np.zeros_like(base)))
    for _ in range(1000):
        tangent = np.zeros_like(base)
        for w, u in pull:
            away = u - np.vdot(u, mean) * mean
            tangent = tangent + w * direction(away) * np.arctan2(np.linalg.norm(away), np.vdot(u, mean))
        tangent = tangent / max(sum(w for w, _ in pull), 1e-300)
        step = np.linalg.norm(tangent)
        if step < 1e-14:
            break
        mean = direction(np.cos(step) * mean + np.sin(step) * direction(tangent))
    return mean * sum(w * np.linalg.norm(m) for w, m in zip(shares, models, strict=True))


def aligned_interpolation(base, experts, *, lambda_, weight):
    """arXiv:2412.19512."""
    mean = sum(w * e for w, e in zip(weight, experts, strict=True)) / sum(weight)
    return (1 - lambda_) * base + lambda_ * mean


def resta(base, experts, *, weight):
    """arXiv:2402.11746: the fine-tuned model, plus gamma times aligned minus unaligned."""
    *tuned, unaligned = experts
    *weight, gamma = weight
    return task_arithmetic(base, tuned, weight=weight) + gamma * (base - unaligned)


def mergealign(base, experts, *, t, interpolation="linear"):
    """arXiv:2411.06824."""
    domain, aligned = (e - base for e in experts)
    return base + (arc(domain, aligned, t) if interpolation == "slerp" else (1 - t) * domain + t * aligned)


def located(scores, share, smallest):
    """The indices of the share of entries with the largest scores, or the smallest; the first among equals first."""
    order = sorted(range(scores.size), key=lambda i: (scores.flat[i] if smallest else -scores.flat[i], i))
    return set(order[: round(share * scores.size)])


def led(base, experts, *, weight, density, importance, pattern="both", disjoint="symmetric", keep="largest"):
    """arXiv:2502.16770: locate, elect, disjoint, one entry at a time; `importance` is a pair for each expert, base and expert."""
    tops = [[located(scores, share, keep == "smallest") for scores in pair] for pair, share in zip(importance, density, strict=True)]
    wanted = {"both": (True, True), "expert": (False, True), "base": (True, False), "neither": (False, False)}[pattern]
    out = base.copy()
    for i in range(base.size):
        elected = [n for n, (in_base, in_expert) in enumerate(tops) if (i in in_base, i in in_expert) == wanted]
        if disjoint == "safety_priority" and 0 in elected:
            elected = [0]
        elif disjoint != "off" and len(elected) > 1:
            elected = []
        out.flat[i] += sum(weight[n] * (experts[n].flat[i] - base.flat[i]) for n in elected)
    return out


def matrices(*tensors):
    """Each tensor as a list of matrices; a vector is one of a single column."""
    shape = tensors[0].shape
    return [list(t.reshape(-1, *shape[-2:])) if len(shape) > 1 else [t.reshape(-1, 1)] for t in tensors]


def projected(update, alignment):
    """C W, with C written out."""
    norm = np.linalg.norm(alignment)
    return (alignment @ alignment.T / norm if norm else 0 * alignment @ alignment.T) @ update


def safe_lora(base, experts, *, threshold):
    """arXiv:2405.16833."""
    out = []
    for aligned, tuned, unaligned in zip(*matrices(base, *experts), strict=True):
        update = tuned - aligned
        there = projected(update, aligned - unaligned)
        out.append(aligned + (there if cosine(there, update) <= threshold else update))
    return np.stack(out).reshape(base.shape)


def safemerge(base, experts, *, threshold, safe_weight):
    """arXiv:2503.17239."""
    tuned, *safe, unaligned = experts
    out = []
    for a, f, s, u in zip(*matrices(base, tuned, safe[0] if safe else base, unaligned), strict=True):
        near = cosine(projected(f - a, a - u), f - a) >= threshold
        out.append(f if near else (1 - safe_weight) * f + safe_weight * s)
    return np.stack(out).reshape(base.shape)


def subspace_projection(base, experts, *, weight, rank=8):
    """arXiv:2608.08542."""
    *tuned, unaligned = experts
    out = []
    for aligned, other, *updated in zip(*matrices(base, unaligned, *tuned), strict=True):
        total = sum(w * (u - aligned) for w, u in zip(weight[:-1], updated, strict=True))
        left, values, _ = np.linalg.svd(aligned - other, full_matrices=False)
        chosen = left[:, [i for i in range(min(rank, values.size)) if values[i] > 1e-6 * values[0]]]
        out.append(aligned + total - weight[-1] * chosen @ (chosen.T @ total))
    return np.stack(out).reshape(base.shape)
