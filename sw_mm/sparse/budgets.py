"""How many units of each layer stay: budgets that add up exactly.

A *unit* is what a mask switches on or off: a filter, or a single weight.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def uniform_budget(sizes: Sequence[int], density: float, floor: float = 0.0) -> list[int]:
    """Give every layer the same density.

    Args:
        sizes: Units of each layer.
        density: Part of all units that stays, in ``(0, 1]``.
        floor: Least density of a layer.

    Returns:
        Units that stay in each layer; they add up to ``round(density * sum(sizes))``.

    Raises:
        ValueError: If ``density`` or ``floor`` is out of range, or ``floor`` is above ``density``.
    """
    return _exact(sizes, list(sizes), density, floor)


def erk_budget(shapes: Sequence[Sequence[int]], sizes: Sequence[int], density: float, floor: float = 0.0) -> list[int]:
    """Give layers a density in proportion to the sum of their dimensions over the product: Erdős-Rényi-Kernel.

    Source: RigL (arXiv:1911.11134), section 3, with Evci et al.'s rule for kernels.

    Args:
        shapes: Shape of each layer's weight.
        sizes: Units of each layer.
        density: As for ``uniform_budget``.
        floor: As for ``uniform_budget``.

    Returns:
        As ``uniform_budget``.

    Raises:
        ValueError: As ``uniform_budget``.
    """
    wanted = [size * sum(shape) / math.prod(shape) for shape, size in zip(shapes, sizes, strict=True)]
    return _exact(sizes, wanted, density, floor)


def snip_budget(scores: Sequence[Tensor], density: float, floor: float = 0.0) -> list[int]:
    """Give every layer as many units as it has among the best of the whole net.

    Source: SNIP (arXiv:1810.02340), section 4.1; SLaK and ShiftWise take only the counts from it and draw
    the units at random.

    Args:
        scores: Importance of each unit of each layer, ``(parallel weights, units)``; finite. Parallel weights are
            ranked one by one, and share a count.
        density: As for ``uniform_budget``.
        floor: As for ``uniform_budget``.

    Returns:
        As ``uniform_budget``.

    Raises:
        ValueError: As ``uniform_budget``, or if a score is not finite.
    """
    everything = torch.cat([score.detach().double().cpu().flatten() for score in scores])
    if not everything.isfinite().all():
        raise ValueError('scores must be finite; the loss of the scoring batch is not, check the data and the weights')
    best = torch.zeros(len(everything), dtype=torch.bool)
    # A stable order, so that ties fall the same way everywhere.
    best[everything.argsort(descending=True, stable=True)[: round(density * len(everything))]] = True
    parts = best.split([score.numel() for score in scores])
    wanted = [int(part.sum()) / len(score) for part, score in zip(parts, scores, strict=True)]
    return _exact([score.shape[1] for score in scores], wanted, density, floor)


def _exact(sizes: Sequence[int], wanted: Sequence[float], density: float, floor: float) -> list[int]:
    """Scale the wishes until, between floor and size, they add up to the total; then round without losing a unit."""
    if not 0 < density <= 1:
        raise ValueError(f'density must be in (0, 1]; got {density!r}')
    if not 0 <= floor <= density:
        raise ValueError(f'floor must be in [0, density={density}]; got {floor!r}')
    total = round(density * sum(sizes))
    # A layer that the floor keeps alive has one unit at least; all floors together never exceed the total.
    least = [min(max(math.floor(floor * size), 1 if floor > 0 else 0), size) for size in sizes]
    total = max(total, sum(least))

    def scaled(factor: float) -> list[float]:
        return [min(max(factor * wish, low), size) for wish, low, size in zip(wanted, least, sizes, strict=True)]

    low, high = 0.0, 1.0
    while sum(scaled(high)) < total and high < 1e30:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(scaled(middle)) < total else (low, middle)
    real = scaled(high)
    counts = [math.floor(value) for value in real]
    # The largest remainders first, then whatever has room: layers that nobody wished for come last.
    order = sorted(range(len(sizes)), key=lambda i: (counts[i] - real[i], i))
    missing = total - sum(counts)
    while missing > 0:
        for i in order:
            if missing > 0 and counts[i] < sizes[i]:
                counts[i] += 1
                missing -= 1
    return counts
