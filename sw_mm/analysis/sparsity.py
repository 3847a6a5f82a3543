"""How sparse a trained model is, weight by weight, and what that saves."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn

from sw_mm.kernels import depthwise_macs, shift_strips
from sw_mm.layers import DepthwiseConv2d, ShiftWiseConv2d

from .complexity import checked_shape, without_data


@dataclass(frozen=True)
class WeightSparsity:
    """One weight of a convolution or linear layer.

    Attributes:
        name: Name of the parameter.
        shape: Its shape.
        params: Numbers in it.
        kept: Those that a mask leaves, or that are not zero.
        macs: Multiply-accumulates of one input by the papers' convention, all numbers counted.
        sparse_macs: Those with kept numbers alone: what papers on sparsity print.
        executed_macs: Those that this implementation does, zeros included. The paths of a shift-wise convolution are
            summed and executed as one, for which the first path stands.
    """

    name: str
    shape: tuple[int, ...]
    params: int
    kept: int
    macs: int
    sparse_macs: int
    executed_macs: int

    @property
    def density(self) -> float:
        """Part of the numbers that is kept."""
        return self.kept / self.params


def sparsity(
    model: nn.Module,
    masks: Mapping[str, Tensor] | None = None,
    input_shape: Sequence[int] = (3, 224, 224),
    forward: Callable[[nn.Module, Tensor], Any] = nn.Module.__call__,
) -> list[WeightSparsity]:
    """Count what is kept of the weights of all convolutions and linear layers, and what they cost.

    Args:
        model: Any model, in training form for its masks to fit.
        masks: Boolean masks by names of weights, of a shape that broadcasts to the weight's. Weights that it lacks
            keep what is not zero. (A weight that has only just grown is zero, and kept.)
        input_shape: Shape of one input, (C, H, W).
        forward: Runs the model on a batch of inputs.

    Returns:
        The weights that ``forward`` uses, and those in ``masks``, in the order of the model.

    Raises:
        ValueError: If ``input_shape`` is not three positive integers, or a mask belongs to no weight.
    """
    masks = dict(masks or {})
    costs = _costs(model, checked_shape(input_shape), forward)
    rows = []
    for name, parameter in model.named_parameters():
        if name not in costs and name not in masks:
            continue
        mask = masks.pop(name, None)
        kept = parameter.detach() != 0 if mask is None else mask.expand(parameter.shape)
        kept, params = int(kept.sum()), parameter.numel()
        macs, executed = costs.get(name, (0, 0))
        rows.append(
            WeightSparsity(name, tuple(parameter.shape), params, kept, macs, round(macs * kept / params), executed)
        )
    if masks:
        raise ValueError(f'masks has {sorted(masks)[0]!r}, which is no weight of the model')
    return rows


def _costs(model: nn.Module, input_shape: Sequence[int], forward: Callable) -> dict[str, tuple[int, int]]:
    """Published and executed MACs of every weight, by its name in the model."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    copy = without_data(model)
    same = {id(new): names[id(old)] for new, old in zip(copy.parameters(), model.parameters(), strict=True)}
    costs = {}

    def add(weight: Tensor, macs: int, executed: int) -> None:
        before = costs.setdefault(same[id(weight)], (0, 0))  # a layer may run several times
        costs[same[id(weight)]] = before[0] + macs, before[1] + executed

    def after(module: nn.Module, args: tuple, output: Tensor) -> None:
        if isinstance(module, ShiftWiseConv2d):
            height, width = args[0].shape[-2:]
            executed, groups = module.macs_executed(height, width), module.large_kernel_weights()
            for place, weight in enumerate(groups[0] if groups else ()):
                add(weight, module.published_macs(height, width) // len(groups[0]), 0 if place else executed)
            return
        outputs = output.numel() // module.weight.shape[0]
        executed = macs = outputs * module.weight.numel()
        if isinstance(module, DepthwiseConv2d):  # which crops its kernel to the map
            rows, columns = module.padding
            geometry = (columns, columns, rows, rows), *args[0].shape[-2:], module.stride, module.dilation
            executed = module.out_channels * depthwise_macs(module.kernel_size, *geometry)
        add(module.weight, macs, executed)

    for module in copy.modules():
        inside = isinstance(module, nn.modules.conv._ConvNd) and not module.transposed
        if isinstance(module, nn.Linear | ShiftWiseConv2d) or inside:
            module.register_forward_hook(after)
    with torch.no_grad():
        forward(copy, torch.empty(1, *input_shape, device='meta'))
    return costs


def total(rows: Sequence[WeightSparsity]) -> WeightSparsity:
    """Add rows up."""
    sums = [sum(getattr(row, field.name) for row in rows) for field in fields(WeightSparsity)[2:]]
    return WeightSparsity('total', (), *sums)


def table(rows: Sequence[WeightSparsity]) -> str:
    """Write rows, and their total, as lines of text."""
    width = max(len(row.name) for row in rows)
    lines = [f'{"weight":{width}}  density     params       kept   MMACs  sparse  executed']
    lines += [
        f'{row.name:{width}}  {row.density:7.4f} {row.params:10,} {row.kept:10,}'
        f' {row.macs / 1e6:7.1f} {row.sparse_macs / 1e6:7.1f} {row.executed_macs / 1e6:9.1f}'
        for row in [*rows, total(rows)]
    ]
    return '\n'.join(lines)


def write_csv(rows: Sequence[WeightSparsity], path: str | PathLike) -> None:
    """Write rows, and their total, as a table for other programs."""
    with open(path, 'w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(['weight', 'shape', 'density', *(field.name for field in fields(WeightSparsity)[2:])])
        for row in [*rows, total(rows)]:
            shape = 'x'.join(map(str, row.shape))
            writer.writerow(
                [row.name, shape, f'{row.density:.6f}', *(getattr(row, f.name) for f in fields(WeightSparsity)[2:])]
            )


def draw_densities(rows: Sequence[WeightSparsity], path: str | PathLike) -> None:
    """Draw a bar a weight: its density, and how many parameters that leaves."""
    from matplotlib.figure import Figure  # not needed to count, and not among the package's own requirements

    figure = Figure(figsize=(10, 1.5 + 0.16 * len(rows)), layout='constrained')
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    left.barh(places, [row.density for row in rows])
    left.axvline(total(rows).density, color='grey', linewidth=0.8)
    left.set(title='density', xlim=(0, 1))
    left.set_yticks(places, [row.name for row in rows], fontsize=6)
    left.invert_yaxis()
    right.barh(places, [row.params for row in rows], color='lightgrey', label='all')
    right.barh(places, [row.kept for row in rows], label='kept')
    right.set(title='parameters', xscale='log')
    right.legend()
    figure.savefig(path, dpi=120)


def strip_masks(model: nn.Module, masks: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Say how dense the large kernels are along their long side, channel by channel.

    Args:
        model: Any model, in training form.
        masks: As for ``sparsity``.

    Returns:
        By the name of the kernel, ``(channels, taps)`` in [0, 1]: the part of the numbers at a tap that is kept. A tap
        of a shift-wise convolution holds one filter of every edge, and is kept where any path keeps it.
    """
    masks = masks or {}
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def kept(weight: Tensor) -> Tensor:
        mask = masks.get(names[id(weight)])
        return weight.detach().abs() > 0 if mask is None else mask.expand(weight.shape)

    found = {}
    for prefix, module in model.named_modules():
        for group in getattr(module, 'large_kernel_weights', list)():
            union = torch.stack([kept(weight) for weight in group]).any(0).float()
            if isinstance(module, ShiftWiseConv2d):
                horizontal, vertical, _ = shift_strips(union, module.tables)
                edges = module.tables.num_edges
                found[f'{prefix}, horizontal'] = horizontal[:, 0].mean(1) / edges
                found[f'{prefix}, vertical'] = vertical[:, 0].mean(2) / edges
            else:
                short = 1 if union.shape[2] < union.shape[3] else 2
                found[names[id(group[0])]] = union[:, 0].mean(short)
    return found


def empty_taps(strips: Mapping[str, Tensor]) -> tuple[int, int, float]:
    """Say what masks leave of the large kernels to drop.

    Args:
        strips: Result of ``strip_masks``.

    Returns:
        Taps that are empty in all channels of their kernel, which could be dropped; taps there are; and the mean part
        of the channels that is empty at a tap.
    """
    taps = sum(strip.shape[1] for strip in strips.values())
    dropped = sum(int((~strip.bool().any(0)).sum()) for strip in strips.values())
    empty = sum(float((~strip.bool()).float().mean(0).sum()) for strip in strips.values())
    return dropped, taps, empty / max(taps, 1)


def draw_strips(strips: Mapping[str, Tensor], path: str | PathLike, columns: int = 4) -> None:
    """Draw the result of ``strip_masks``: a panel a kernel, a row a channel; white is pruned.

    Raises:
        ValueError: If there is nothing to draw.
    """
    if not strips:
        raise ValueError('the model has no large kernel in training form')
    from matplotlib.figure import Figure

    lines = -(-len(strips) // columns)
    figure = Figure(figsize=(3.5 * columns, 2.2 * lines), layout='constrained')
    panels = figure.subplots(lines, columns, squeeze=False).flat
    for ax, (name, strip) in zip(panels, strips.items(), strict=False):
        ax.imshow(strip.cpu().numpy(), aspect='auto', cmap='Blues', vmin=0, vmax=1, interpolation='nearest')
        ax.set_title(f'{name}\n{strip.mean():.3f}', fontsize=6)
        ax.tick_params(labelsize=6)
    for ax in list(figure.axes)[len(strips) :]:
        ax.remove()
    figure.savefig(path, dpi=120)
