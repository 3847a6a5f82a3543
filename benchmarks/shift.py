"""Time shift-wise convolutions on the CPU: this project's beside PyTorch's own and the literal slicing and adding.

The training form makes three maps from small filters; the deploy form makes their sum from two folded strips. Every
implementation has to agree with the literal form in float64, in each pass, before it is timed::

    python -m benchmarks.shift
    python -m benchmarks.shift --model SW-S --form deploy --only 14x14 --pass forward --out quick.csv
"""

import argparse
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from sw_mm.kernels import folded_shift_conv2d, shift_conv2d, shift_strips
from sw_mm.kernels.depthwise_conv2d import reference as depthwise_reference
from sw_mm.kernels.shift_conv2d import reference

from . import harness, peers, plots, workloads
from .workloads import Shift


def training(layer: Shift, x: Tensor, generator: torch.Generator) -> tuple[dict, dict]:
    """Candidates and reference of the training form; its weight are the small filters."""
    tables, k = layer.tables, layer.small_kernel
    weight = torch.randn(layer.channels * tables.num_shifts, 1, k, k, generator=generator).to(x.dtype)
    connections = torch.as_tensor(tables.connection_matrix())
    branches = [peers.native(branch) for branch in layer.branches(deploy=False)]

    def ours(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return shift_conv2d(x, weight, tables, connections)

    def plain(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        kernels = shift_strips(weight, tables, connections)
        return tuple(branch(x, kernel) for branch, kernel in zip(branches, kernels, strict=True))

    def literal(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return reference.shift_conv2d(x, weight, tables)

    candidates = _in_both_layouts(ours, plain, x, weight)
    candidates['slice and add'] = harness.passes(literal, x, weight)
    return candidates, harness.passes(literal, x.double(), weight.double())


def deploy(layer: Shift, x: Tensor, generator: torch.Generator) -> tuple[dict, dict]:
    """Candidates and reference of the deploy form; its weight is the horizontal strip, and there is only a forward."""
    (horizontal, vertical), tables = layer.branches(deploy=True), layer.tables
    along = torch.randn(layer.channels, 1, *horizontal.kernel_size, generator=generator).to(x.dtype)
    across = torch.randn(layer.channels, 1, *vertical.kernel_size, generator=generator).to(x.dtype)
    bias = torch.zeros(layer.channels, dtype=x.dtype)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return folded_shift_conv2d(x, weight, across, bias, tables)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return peers.native(horizontal)(x, weight) + peers.native(vertical)(x, across)

    def exact(x: Tensor, weight: Tensor) -> Tensor:
        strips = (horizontal, weight), (vertical, across.double())
        return sum(depthwise_reference.depthwise_conv2d(x, w, None, strip.padding) for strip, w in strips)

    candidates = _in_both_layouts(ours, plain, x, along, ('forward',))
    if x.dtype is torch.float32:
        one, other = peers.engines(horizontal, along), peers.engines(vertical, across)
        for name in one:
            candidates[name] = {'forward': lambda name=name: (one[name](x) + other[name](x),)}
    return candidates, harness.passes(exact, x.double(), along.double(), ('forward',))


def _in_both_layouts(ours, plain, x: Tensor, weight: Tensor, wanted: tuple[str, ...] = harness.PASSES) -> dict:
    candidates = {}
    for layout, memory_format in harness.LAYOUTS.items():
        image = x.contiguous(memory_format=memory_format)
        candidates[f'sw_mm {layout}'] = harness.passes(ours, image, weight, wanted)
        candidates[f'{harness.PLAIN} {layout}'] = harness.passes(plain, image, weight, wanted)
    return candidates


FORMS = {'training': training, 'deploy': deploy}


def cases(args: argparse.Namespace) -> Iterator[harness.Case]:
    """Make the layers of a model that the command line asks for."""
    for form in args.forms:
        for layer in workloads.MODELS[args.model]():
            if not re.search(args.only, str(layer)):
                continue
            generator = torch.Generator().manual_seed(0)
            x = torch.randn(args.batch, layer.channels, *layer.size, generator=generator)
            candidates, exact = FORMS[form](layer, x.to(getattr(torch, args.dtype)), generator)
            head = {'form': form, 'layer': str(layer), 'batch': args.batch}
            yield harness.Case(head, candidates, exact, layer.useful_macs(args.batch, form == 'deploy'))


def main() -> None:
    """Read the command line, measure, write and draw."""
    parser = harness.arguments('shift', __doc__.splitlines()[0])
    parser.add_argument('--model', choices=['SW-T', 'SW-S'], default='SW-T')
    parser.add_argument('--form', dest='forms', nargs='+', choices=list(FORMS), default=list(FORMS))
    parser.add_argument('--batch', type=int, default=8)
    args = parser.parse_args()
    table = harness.run(args, cases(args))
    for form in args.forms:
        rows = [row for row in table if row['form'] == form]
        plots.speedups(rows, args.out.with_name(f'{args.out.stem}_{form}.png'))


if __name__ == '__main__':
    main()
