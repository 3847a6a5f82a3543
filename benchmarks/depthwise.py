"""Time depthwise convolutions on the CPU: this project's beside PyTorch's own, FFT and what else is installed.

Every implementation has to agree with the float64 reference, in each pass, before it is timed::

    python -m benchmarks.depthwise
    python -m benchmarks.depthwise --part grid --only k31 --pass weight_grad --seconds 0.1 --out quick.csv
"""

import argparse
import re
from collections.abc import Iterator

import torch
from torch import Tensor

from sw_mm.kernels import depthwise_conv2d
from sw_mm.kernels.depthwise_conv2d import reference

from . import harness, peers, plots, workloads
from .workloads import Depthwise


def case(layer: Depthwise, batch: int, dtype: torch.dtype, head: dict[str, object]) -> harness.Case:
    """Put together all that can compute a layer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, layer.channels, *layer.size, generator=generator).to(dtype)
    weight = torch.randn(layer.channels, 1, *layer.kernel_size, generator=generator).to(dtype)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv2d(x, weight, padding=layer.padding)

    def exact(x: Tensor, weight: Tensor) -> Tensor:
        return reference.depthwise_conv2d(x, weight, None, layer.padding)

    candidates = {}
    for layout, memory_format in harness.LAYOUTS.items():
        image = x.contiguous(memory_format=memory_format)
        candidates[f'sw_mm {layout}'] = harness.passes(ours, image, weight)
        candidates[f'{harness.PLAIN} {layout}'] = harness.passes(peers.native(layer), image, weight)
    if dtype is torch.float32:
        candidates['FFT'] = harness.passes(peers.fft(layer), x, weight)
        for name, engine in peers.engines(layer, weight).items():
            candidates[name] = {'forward': lambda engine=engine: (engine(x),)}
    return harness.Case(
        {**head, 'layer': str(layer), 'batch': batch},
        candidates,
        harness.passes(exact, x.double(), weight.double()),
        layer.useful_macs(batch),
    )


def cases(args: argparse.Namespace) -> Iterator[harness.Case]:
    """Make the layers of the grid and of the growth series that the command line asks for."""
    dtype = getattr(torch, args.dtype)
    points = []
    if 'grid' in args.parts:
        points += [('', '', layer, 8) for layer in workloads.grid()]
    if 'growth' in args.parts:
        points += [(series, *point) for series, line in workloads.growth().items() for point in line]
    for series, value, layer, batch in points:
        if re.search(args.only, str(layer)):
            yield case(layer, batch, dtype, {'series': series, 'value': value})


def main() -> None:
    """Read the command line, measure, write and draw."""
    parser = harness.arguments('depthwise', __doc__.splitlines()[0])
    parser.add_argument('--part', dest='parts', nargs='+', choices=['grid', 'growth'], default=['grid', 'growth'])
    args = parser.parse_args()
    table = harness.run(args, cases(args))
    for part, draw in (('grid', plots.speedups), ('growth', plots.growth)):
        rows = [row for row in table if (part == 'growth') == bool(row['series'])]
        if rows:
            draw(rows, args.out.with_name(f'{args.out.stem}_{part}.png'))


if __name__ == '__main__':
    main()
