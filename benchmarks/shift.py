"""Time shift-wise convolutions on the CPU: this project's beside PyTorch's own and the literal slicing and adding.

The training form makes three maps from small filters; the deploy form makes their sum from two folded strips. Every
implementation has to agree in each pass with the literal form, or that of the strips, in float64 before it is timed::

    python -m benchmarks.shift
    python -m benchmarks.shift --model SW-S --form deploy --only 14x14 --pass forward --out quick.csv
"""

import re

import torch
from torch import Tensor

from sw_mm.kernels import folded_shift_conv2d, shift_conv2d, shift_strips
from sw_mm.kernels.shift_conv2d import reference

from . import harness, peers, plots, workloads
from .workloads import Shift


def training(layer: Shift, x: Tensor, generator: torch.Generator) -> tuple[dict, dict]:
    """Candidates and reference of the training form; its weight are the small filters."""
    tables, k = layer.tables, layer.small_kernel
    weight = torch.randn(layer.channels * tables.num_shifts, 1, k, k, generator=generator).to(x)
    connections = torch.as_tensor(tables.connection_matrix()).to(x)
    branches = [peers.native(branch) for branch in layer.branches(deploy=False)]

    def ours(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return shift_conv2d(x, weight, tables, connections)

    def plain(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        kernels = shift_strips(weight, tables, connections)
        return tuple(branch(x, kernel) for branch, kernel in zip(branches, kernels, strict=True))

    def literal(x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        return reference.shift_conv2d(x, weight, tables)

    candidates = harness.in_both_layouts({harness.OURS: ours, harness.PLAIN: plain}, x, weight)
    if x.device.type == 'cpu':  # a GPU takes seconds for its gradients
        candidates['slice and add'] = harness.passes(literal, x, weight)
    return candidates, harness.passes(literal, x.double(), weight.double())


def deploy(layer: Shift, x: Tensor, generator: torch.Generator) -> tuple[dict, dict]:
    """Candidates and reference of the deploy form, forward only; its weight is the horizontal strip."""
    (horizontal, vertical), tables = layer.branches(deploy=True), layer.tables
    along = torch.randn(layer.channels, 1, *horizontal.kernel_size, generator=generator).to(x)
    across = torch.randn(layer.channels, 1, *vertical.kernel_size, generator=generator).to(x)
    bias = x.new_zeros(layer.channels)

    def ours(x: Tensor, weight: Tensor) -> Tensor:
        return folded_shift_conv2d(x, weight, across, bias, tables)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return peers.native(horizontal)(x, weight) + peers.native(vertical)(x, across.to(x))

    candidates = harness.in_both_layouts({harness.OURS: ours, harness.PLAIN: plain}, x, along, ['forward'])
    if x.dtype is torch.float32:
        one, other = peers.engines(horizontal, along), peers.engines(vertical, across)
        for name in one:
            candidates[name] = {'forward': lambda name=name: (one[name](x) + other[name](x),)}
    return candidates, harness.passes(plain, x.double(), along.double(), ['forward'])


FORMS = {'training': training, 'deploy': deploy}


def case(layer: Shift, form: str, batch: int, dtype: torch.dtype, device: str = 'cpu') -> harness.Case:
    """Put together all that can compute a layer in a form on a device."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, layer.channels, *layer.size, generator=generator).to(device, dtype)
    head = {'layer': str(layer), 'batch': batch, 'form': form}
    return harness.Case(head, *FORMS[form](layer, x, generator), layer.useful_macs(batch, deploy=form == 'deploy'))


def main() -> None:
    """Read the command line, measure, write and draw."""
    parser = harness.arguments('shift', __doc__.splitlines()[0])
    parser.add_argument('--model', choices=['SW-T', 'SW-S'], default='SW-T')
    parser.add_argument('--form', dest='forms', nargs='+', choices=list(FORMS), default=list(FORMS))
    parser.add_argument('--batch', type=int, default=8)
    args = parser.parse_args()
    layers = [layer for layer in workloads.MODELS[args.model]() if re.search(args.only, str(layer))]
    table = harness.run(
        args, lambda dtype: (case(layer, form, args.batch, dtype) for form in args.forms for layer in layers)
    )
    for form in args.forms:
        plots.speedups([row for row in table if row['form'] == form], args.out.with_name(f'{args.out.stem}_{form}.png'))


if __name__ == '__main__':
    main()
