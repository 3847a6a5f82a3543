"""How masks change in training: prune the least, grow as many elsewhere, keep every count."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .masks import MaskedWeight, SparseLayer


def cosine_prune_rate(step: int, steps: int, start: float, end: float = 0.005) -> float:
    """Return the part of the active units to replace, falling along half a cosine.

    Source: SLaK and ShiftWise, official code: from ``start`` to 0.005 over all updates of the weights.

    Args:
        step: Updates of the weights done so far; beyond ``steps`` the rate stays at its end.
        steps: Updates in the whole training.
        start: Rate at the first.
        end: Rate at the last; less if ``start`` is less.
    """
    end = min(start, end)
    progress = min(step / max(steps, 1), 1.0)
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


def draw_masks(layer: SparseLayer, count: int, generator: torch.Generator) -> None:
    """Keep ``count`` units drawn at random, the same ones in all weights of a layer."""
    mask = torch.zeros(layer.size, dtype=torch.bool)
    mask[torch.randperm(layer.size, generator=generator)[:count]] = True
    for weight in layer.weights:
        weight.mask = mask.to(weight.parameter.device)


def exchange_units(
    layer: SparseLayer,
    rate: float,
    generator: torch.Generator,
    growth: Callable[[MaskedWeight], Tensor] | None = None,
    aligned: bool = False,
) -> None:
    """Prune the units of least magnitude and grow as many that were pruned before.

    ``ceil(rate * active)`` units go, at most as many as there are places to grow at. None of them comes back at once.
    The masks change, the weights do not.

    Args:
        layer: What to change.
        rate: Part of the active units to replace.
        generator: Of the CPU; draws where to grow.
        growth: Scores of all units of a weight: the best grow (RigL). None grows at random.
        aligned: Decide for all weights together, by the sum of their scores, and give them one mask: the first one's
            with the changes. Otherwise each weight is decided by itself.
    """
    groups = [layer.weights] if aligned else [[weight] for weight in layer.weights]
    for group in groups:
        magnitude = sum(weight.per_unit(weight.parameter.detach().abs()) for weight in group).cpu()
        mask = group[0].mask.cpu()
        active, idle = mask.nonzero().flatten(), (~mask).nonzero().flatten()
        swap = min(math.ceil(rate * len(active)), len(idle))
        pruned = active[magnitude[active].argsort(stable=True)[:swap]]
        if growth is None:
            order = torch.randperm(len(idle), generator=generator)
        else:
            gain = sum(growth(weight) for weight in group).cpu()
            order = gain[idle].argsort(descending=True, stable=True)
        mask = mask.clone()
        mask[pruned], mask[idle[order[:swap]]] = False, True
        for weight in group:
            weight.mask = mask.to(weight.parameter.device)
