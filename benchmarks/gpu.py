"""Time the Triton kernels on this machine's GPU beside cuDNN, which `F.conv2d` calls, for the layers of the models.

Every pass has to agree with the float64 reference before it is timed. Times are medians between events on the device,
implementations in turns, each run with a cold L2 cache::

    python -m benchmarks.gpu
    python -m benchmarks.gpu --model RepLKNet-31B --dtype bfloat16 --batch 32 --out replknet.csv
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch

from sw_mm.kernels import use_backend

from . import depthwise, harness, shift, workloads
from .workloads import Shift


def cases(models: Iterable[str], only: str, batch: int, dtype: torch.dtype) -> Iterator[harness.Case]:
    """Make the layers of some models whose name matches; shift-wise layers in both forms."""
    for model in models:
        for layer, count in workloads.MODELS[model]().items():
            if not re.search(only, str(layer)):
                continue
            if isinstance(layer, Shift):
                made = [shift.case(layer, form, batch, dtype, 'cuda') for form in shift.FORMS]
            else:
                made = [depthwise.case(layer, batch, dtype, 'cuda')]
            for one in made:
                yield replace(one, head={'model': model, 'count': count, 'form': '', **one.head})


def main() -> None:
    """Read the command line, measure, write."""
    parser = harness.arguments('gpu', __doc__.splitlines()[0], 'cuda', ['float32', 'float16', 'bfloat16'])
    parser.add_argument('--model', nargs='+', choices=list(workloads.MODELS), default=list(workloads.MODELS))
    parser.add_argument('--batch', type=int, default=64)
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.exit(1, 'benchmarks.gpu needs a CUDA device and finds none; benchmarks.aot does without\n')
    # Also where the choice would be cuDNN, as for small kernels: the table is to show whether that choice is right.
    with use_backend('triton'):
        harness.run(args, lambda dtype: cases(args.model, args.only, args.batch, dtype))


if __name__ == '__main__':
    main()
