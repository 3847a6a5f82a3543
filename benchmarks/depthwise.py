"""Time depthwise convolutions on the CPU: this project's beside PyTorch's own, FFT and what else is installed.

Every implementation has to agree with F.conv2d in float64, in each pass, before it is timed::

    python -m benchmarks.depthwise
    python -m benchmarks.depthwise --part grid --only k31 --pass weight_grad --seconds 0.1 --out quick.csv
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sw_mm.kernels import depthwise_conv2d

from . import harness, peers, plots, workloads
from .workloads import Depthwise


def case(layer: Depthwise, batch: int, dtype: torch.dtype, device: str = 'cpu') -> harness.Case:
    """Put together all that can compute a layer on a device."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, layer.channels, *layer.size, generator=generator).to(device, dtype)
    weight = torch.randn(layer.channels, 1, *layer.kernel_size, generator=generator).to(device, dtype)

    native = peers.native(layer)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv2d(x, weight, stride=layer.stride, padding=layer.padding, dilation=layer.dilation)

    candidates = harness.in_both_layouts({harness.OURS: ours, harness.PLAIN: native}, x, weight)
    if dtype is torch.float32:
        candidates['FFT'] = harness.passes(peers.fft(layer), x, weight)
        for name, engine in peers.engines(layer, weight).items():
            candidates[name] = {'forward': lambda engine=engine: (engine(x),)}
    return harness.Case(
        {'layer': str(layer), 'batch': batch},
        candidates,
        harness.passes(native, x.double(), weight.double()),
        layer.useful_macs(batch),
    )


def cases(parts: Collection[str], only: str, dtype: torch.dtype) -> Iterator[harness.Case]:
    """Make the layers of the grid and of the growth series whose name matches."""
    points = [('', '', layer, 8) for layer in workloads.grid()] if 'grid' in parts else []
    if 'growth' in parts:
        points += [(series, *point) for series, line in workloads.growth().items() for point in line]
    for series, value, layer, batch in points:
        if re.search(only, str(layer)):
            made = case(layer, batch, dtype)
            yield replace(made, head={'series': series, 'value': value, **made.head})


def main() -> None:
    """Read the command line, measure, write and draw."""
    parser = harness.arguments('depthwise', __doc__.splitlines()[0])
    parser.add_argument('--part', dest='parts', nargs='+', choices=['grid', 'growth'], default=['grid', 'growth'])
    args = parser.parse_args()
    table = harness.run(args, lambda dtype: cases(args.parts, args.only, dtype))
    for part, draw in (('grid', plots.speedups), ('growth', plots.growth)):
        rows = [row for row in table if (part == 'growth') == bool(row['series'])]
        if rows:
            draw(rows, args.out.with_name(f'{args.out.stem}_{part}.png'))


if __name__ == '__main__':
    main()
