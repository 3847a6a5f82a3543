"""Which weights of a net may differ from zero: the masks, and where they lie."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

Granularity = Literal['filter', 'weight']


@dataclass
class MaskedWeight:
    """One weight tensor under a mask.

    Attributes:
        name: Name of the parameter in the model.
        parameter: The weight.
        granularity: Whether a unit is ``weight[i]`` (``'filter'``) or one number (``'weight'``).
        mask: Which units may differ from zero, boolean, one axis, on the device of the weight.
    """

    name: str
    parameter: nn.Parameter
    granularity: Granularity
    mask: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.mask = torch.ones(self.size, dtype=torch.bool, device=self.parameter.device)

    @property
    def size(self) -> int:
        """Number of units."""
        return len(self.parameter) if self.granularity == 'filter' else self.parameter.numel()

    def per_unit(self, values: Tensor) -> Tensor:
        """Add up a tensor of the weight's shape over each unit."""
        return values.flatten(1).sum(1) if self.granularity == 'filter' else values.flatten()

    def shaped(self, mask: Tensor | None = None) -> Tensor:
        """View a mask, by default the weight's own, in a shape that broadcasts to the weight's."""
        mask = self.mask if mask is None else mask
        shape = (-1, *[1] * (self.parameter.dim() - 1)) if self.granularity == 'filter' else self.parameter.shape
        return mask.view(shape)

    @torch.no_grad()
    def apply(self, tensor: Tensor | None = None) -> None:
        """Zero the masked units of the weight, or of another tensor of its shape, in place."""
        tensor = self.parameter if tensor is None else tensor
        tensor.mul_(self.shaped().to(tensor.device))


@dataclass
class SparseLayer:
    """Weights that share a budget: one, or the parallel filters of a shift-wise convolution.

    Attributes:
        name: What reports call it.
        weights: All of one shape.
    """

    name: str
    weights: list[MaskedWeight]

    @property
    def size(self) -> int:
        """Number of units of each weight."""
        return self.weights[0].size

    @property
    def density(self) -> float:
        """Part of the units that stays, by the masks as they are."""
        return sum(int(weight.mask.sum()) for weight in self.weights) / (self.size * len(self.weights))


def find_layers(
    model: nn.Module, granularity: Granularity, targets: Literal['large_kernels', 'all'] | Sequence[str]
) -> list[SparseLayer]:
    """Find what is to be masked, in the order of the model's modules; frozen weights are left out.

    Args:
        model: Any model, without a wrapper.
        granularity: Units of the large kernels. Other weights are masked number by number.
        targets: ``'large_kernels'`` takes what modules name in a method ``large_kernel_weights``; ``'all'`` adds the
            weights of all convolutions and linear layers; regular expressions take the parameters with two axes or
            more whose whole name one of them matches.

    Raises:
        ValueError: If an argument is unknown, an expression matches nothing, or nothing is left to mask.
    """
    if granularity not in ('filter', 'weight'):
        raise ValueError(f"granularity must be 'filter' or 'weight'; got {granularity!r}")
    if isinstance(targets, str) and targets not in ('large_kernels', 'all'):
        raise ValueError(f"targets must be 'large_kernels', 'all' or a list of regular expressions; got {targets!r}")
    if isinstance(targets, str):
        layers = list(_large_kernels(model, granularity))
        if targets == 'all':
            known = {id(weight.parameter) for layer in layers for weight in layer.weights}
            layers += _others(model, known)
    else:
        layers = list(_matching(model, granularity, targets))
    if not layers:
        raise ValueError(
            f'targets={targets!r} leaves nothing to mask in {type(model).__name__}: it has no trainable large kernel. '
            "Take another backbone, targets='all', or expressions that match its weights"
        )
    return layers


def _large_kernels(model: nn.Module, granularity: Granularity) -> Iterator[SparseLayer]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for prefix, module in model.named_modules():
        if not hasattr(module, 'large_kernel_weights'):
            continue
        groups = [[p for p in group if p.requires_grad] for group in module.large_kernel_weights()]
        for group in filter(None, groups):
            weights = [MaskedWeight(names[id(parameter)], parameter, granularity) for parameter in group]
            # Parallel filters share masks; single weights stand for themselves.
            if granularity == 'filter' or len(weights) == 1:
                yield SparseLayer(prefix if len(weights) > 1 else weights[0].name, weights)
            else:
                yield from (SparseLayer(weight.name, [weight]) for weight in weights)


def _others(model: nn.Module, known: set[int]) -> Iterator[SparseLayer]:
    candidates = {id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)} - known
    for name, parameter in model.named_parameters():  # each once, even if modules share it
        if id(parameter) in candidates and parameter.requires_grad:
            yield SparseLayer(name, [MaskedWeight(name, parameter, 'weight')])


def _matching(model: nn.Module, granularity: Granularity, patterns: Sequence[str]) -> Iterator[SparseLayer]:
    unused = set(patterns)
    for name, parameter in model.named_parameters():
        matching = {pattern for pattern in patterns if re.fullmatch(pattern, name)}
        unused -= matching
        if matching and parameter.dim() >= 2 and parameter.requires_grad:
            yield SparseLayer(name, [MaskedWeight(name, parameter, granularity)])
    if unused:
        raise ValueError(
            f'targets={sorted(unused)} match no parameter of {type(model).__name__}; see named_parameters()'
        )


def pack_bits(mask: Tensor) -> Tensor:
    """Store a boolean mask of one axis in one bit a unit: uint8, the last byte padded with zeros."""
    mask = mask.cpu()
    padded = torch.cat([mask, mask.new_zeros(-len(mask) % 8)]).view(-1, 8)
    return (padded.to(torch.uint8) << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, size: int) -> Tensor:
    """Restore a mask of ``size`` units from ``pack_bits``."""
    return ((packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1).bool().flatten()[:size]


def saved_masks(state: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Return the masks of a checkpoint, in shapes that broadcast to the weights of a model.

    Args:
        state: ``checkpoint['sparse']``.
        model: The model that was trained, in training form.

    Raises:
        ValueError: If the masks fit no weights of the model.
    """
    parameters, masks = dict(model.named_parameters()), {}
    for name, packed in state['masks'].items():
        size = state['sizes'][name]
        for granularity in ('filter', 'weight'):
            if name in parameters:
                weight = MaskedWeight(name, parameters[name], granularity)
                if weight.size == size:
                    masks[name] = weight.shaped(unpack_bits(packed.cpu(), size))
                    break
        else:
            raise ValueError(f'the mask of {name} fits no weight of the model; is it the one that was trained?')
    return masks
