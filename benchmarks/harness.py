"""What every benchmark shares: a gate before the clock, comparable times, and tables that say their origin."""

import argparse
import csv
import math
import os
import platform
import random
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from torch import Tensor

from sw_mm.kernels import backends

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks' / 'results'
# How the names of implementations begin: this project's, and PyTorch's own convolution.
OURS, PLAIN = 'sw_mm', 'F.conv2d'
LAYOUTS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
PASSES = ('forward', 'input_grad', 'weight_grad')
# Largest relative error, in the norm, against the float64 reference.
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}

Operator = Callable[[Tensor, Tensor], Tensor | tuple[Tensor, ...]]
Run = Callable[[], tuple[Tensor, ...]]


def passes(operator: Operator, x: Tensor, weight: Tensor, wanted: Iterable[str] = PASSES) -> dict[str, Run]:
    """Make functions that run one pass of an operator each.

    A gradient's function repeats the backward pass of one recorded forward pass in which only what it differentiates
    for requires a gradient. The output's gradient is random but the same for every operator.

    Args:
        operator: Maps input and weight to a tensor or several.
        x: Input; its memory format is kept.
        weight: Weight.
        wanted: Which of `PASSES`.

    Returns:
        Functions without arguments by the name of the pass; each gives a tuple of tensors.
    """

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return _as_tuple(operator(x, weight))

    def backward(of_input: bool) -> Run:
        inputs = x.detach().requires_grad_(of_input), weight.detach().requires_grad_(not of_input)
        outputs = _as_tuple(operator(*inputs))
        generator = torch.Generator().manual_seed(1)
        grads = tuple(
            torch.empty_like(out).copy_(torch.randn(out.shape, generator=generator).to(out.dtype)) for out in outputs
        )
        return lambda: torch.autograd.grad(outputs, inputs[0 if of_input else 1], grads, retain_graph=True)

    make = {
        'forward': lambda: forward,
        'input_grad': lambda: backward(of_input=True),
        'weight_grad': lambda: backward(of_input=False),
    }
    return {name: make[name]() for name in wanted}


def in_both_layouts(
    operators: Mapping[str, Operator], x: Tensor, weight: Tensor, wanted: Iterable[str] = PASSES
) -> dict[str, dict[str, Run]]:
    """Make the `passes` of some operators on a contiguous and on a channels_last input, the same for all of them.

    Where in memory a map lies can make a tenth of a difference.
    """
    inputs = {layout: x.contiguous(memory_format=memory_format) for layout, memory_format in LAYOUTS.items()}
    return {
        f'{name} {layout}': passes(operator, given, weight, wanted)
        for layout, given in inputs.items()
        for name, operator in operators.items()
    }


def relative_error(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest error among some tensors, each relative to the norm of what is expected."""
    return max(
        float((a.double() - e.double()).norm() / e.double().norm()) for a, e in zip(actual, expected, strict=True)
    )


def right_ones(runs: Mapping[str, Run], expected: Sequence[Tensor], dtype: torch.dtype) -> dict[str, Run]:
    """Let implementations pass to the clock only if they are right; others are left out, and stderr says so.

    Args:
        runs: Implementations of a pass by name.
        expected: What the float64 reference gives.
        dtype: Which of `TOLERANCE` holds.

    Raises:
        RuntimeError: If it is ours that is wrong.
    """
    right = {}
    for name, function in runs.items():
        error = relative_error(function(), expected)
        if error <= TOLERANCE[dtype]:
            right[name] = function
            continue
        message = f'{name} is wrong: relative error {error:.1e}, allowed {TOLERANCE[dtype]:.1e} in {dtype}'
        if name.startswith(OURS):
            raise RuntimeError(message)
        print(message, file=sys.stderr)
    return right


def cpu_times(functions: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Time functions in turns, so that all of them meet the same state of the machine.

    The order changes from turn to turn: whoever always came after a function with the same input would find it in the
    caches.

    Args:
        functions: What to time, by name.
        seconds: How long to go on with each; every function runs three times at least, the first not counted.

    Returns:
        Shortest time of each in seconds: time of the processor with one thread, of the clock on the wall with more.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    order = random.Random(0)
    # As in any program that ran for a while: glibc gives memory back to the system, which clears it for the next one to
    # take, until it has seen a block freed that is as large as the blocks of a layer.
    torch.empty(31 * 2**20, dtype=torch.int8)
    taken: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    running = list(functions)
    while running:
        order.shuffle(running)
        for name in list(running):
            start = clock()
            functions[name]()
            taken[name].append(clock() - start)
            if len(taken[name]) >= 2 and sum(taken[name]) >= seconds:
                running.remove(name)
    return {name: min(times) for name, times in taken.items()}


def gpu_times(functions: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Time functions on the current CUDA device in turns, each run with a cold L2 cache.

    Args:
        functions: What to time, by name.
        seconds: How long to go on with each; at least five runs, after three that are not counted.

    Returns:
        Median time of each in seconds, between events on the device.
    """
    flush = torch.empty(256 * 2**20, dtype=torch.int8, device='cuda')
    taken: dict[str, list[float]] = {name: [] for name in functions}
    running = dict(functions)
    while running:
        for name, function in list(running.items()):
            flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            end.synchronize()
            taken[name].append(start.elapsed_time(end) / 1e3)
            if len(taken[name]) >= 8 and sum(taken[name]) >= seconds:
                del running[name]
    return {name: statistics.median(times[3:]) for name, times in taken.items()}


TIMERS = {'cpu': cpu_times, 'cuda': gpu_times}


def matmul_flops(dtype: torch.dtype, device: str = 'cpu') -> float:
    """Measure the floating point operations a second of a large matrix product: the practical peak of a machine."""
    size = 1536 if device == 'cpu' else 8192
    a, b = torch.randn(2, size, size).to(device, dtype)
    return 2 * size**3 / TIMERS[device]({'product': lambda: a @ b}, 1.0)['product']


def environment() -> dict[str, str]:
    """Say where and when a result came about."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else 'none'
    return {
        'date': time.strftime('%Y-%m-%d'),
        'commit': _commit(),
        'cpu': f'{_cpu()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}',
        'gpu': gpu,
        'threads': str(torch.get_num_threads()),
        'kernels': os.environ.get('SW_MM_KERNELS', 'auto')
        + ' of '
        + ', '.join(n for n, reason in backends().items() if not reason),
        'versions': ', '.join(
            f'{name} {version}'
            for name in ('torch', 'triton', 'onnxruntime', 'openvino')
            if (version := _version(name)) is not None
        ),
    }


@dataclass(frozen=True)
class Case:
    """A layer to measure.

    Attributes:
        head: Cells that begin its rows; ``layer`` is one of them.
        candidates: By name and pass, what to time; names that begin with `PLAIN` are what the others are compared with.
        exact: By pass, the float64 reference; passes it lacks are left out.
        macs: Useful multiply-accumulates of a pass.
    """

    head: Mapping[str, object]
    candidates: Mapping[str, Mapping[str, Run]]
    exact: Mapping[str, Run]
    macs: int


def arguments(
    module: str, description: str, device: str = 'cpu', dtypes: Sequence[str] = ('float32',)
) -> argparse.ArgumentParser:
    """Make the command line that the benchmarks share; ``dtypes`` are those measured by default."""
    parser = argparse.ArgumentParser(prog=f'python -m benchmarks.{module}', description=description)
    parser.add_argument('--only', default='', help='regular expression that the name of a layer must match')
    parser.add_argument('--pass', dest='passes', nargs='+', choices=PASSES, default=list(PASSES))
    parser.add_argument('--dtype', nargs='+', choices=['float32', 'float16', 'bfloat16'], default=list(dtypes))
    parser.add_argument('--seconds', type=float, default=0.5, help='time to spend on each implementation and pass')
    parser.add_argument('--threads', type=int, default=1, help='threads of the CPU')
    parser.add_argument('--out', type=Path, default=RESULTS / f'{module}.csv')
    parser.set_defaults(device=device)
    return parser


def run(args: argparse.Namespace, cases: Callable[[torch.dtype], Iterable[Case]]) -> list[dict[str, str]]:
    """Check and time cases, print the rows as they come, write them all.

    Args:
        args: Command line of `arguments`.
        cases: Makes what to measure in a dtype, one after the other.

    Returns:
        The table as `read_csv` gives it.
    """
    torch.set_num_threads(args.threads)
    about, load = environment(), os.getloadavg()[0]
    rows: list[dict[str, object]] = []
    for dtype in (getattr(torch, name) for name in args.dtype):
        peak = matmul_flops(dtype, args.device)
        about[f'peak in {dtype}'] = f'{peak / 1e9:.0f} GF/s, measured with a matrix product'
        for case in cases(dtype):
            for name in [name for name in args.passes if name in case.exact]:
                new = list(_measure(case, name, dtype, args, peak))
                print_table(new)
                rows += new
            about['load'] = f'{load:.1f} before, {os.getloadavg()[0]:.1f} after (processes, average of a minute)'
            write_csv(args.out, rows, about)  # each time, so that an interrupted run leaves what it has
    if not rows:
        raise SystemExit(f'no layer matches --only {args.only!r}')
    return read_csv(args.out)


def _measure(
    case: Case, name: str, dtype: torch.dtype, args: argparse.Namespace, peak: float
) -> Iterator[dict[str, object]]:
    runs = {who: by_pass[name] for who, by_pass in case.candidates.items() if name in by_pass}
    times = TIMERS[args.device](right_ones(runs, case.exact[name](), dtype), args.seconds)
    plain = min((taken for who, taken in times.items() if who.startswith(PLAIN)), default=math.nan)
    for who, taken in times.items():
        yield {
            **case.head,
            'dtype': str(dtype).removeprefix('torch.'),
            'pass': name,
            'implementation': who,
            'ms': f'{1e3 * taken:.3f}',
            'useful_gflops': f'{2e-9 * case.macs / taken:.1f}',
            'of_peak': f'{2 * case.macs / taken / peak:.3f}',
            'speedup': f'{plain / taken:.3g}',
        }


def write_csv(path: Path, rows: Sequence[Mapping[str, object]], about: Mapping[str, str]) -> None:
    """Write rows with equal keys, below lines ``# key: value`` that say where they come from."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        file.writelines(f'# {key}: {value}\n' for key, value in about.items())
        table = csv.DictWriter(file, list(rows[0]), lineterminator='\n')
        table.writeheader()
        table.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Read what `write_csv` wrote."""
    with path.open(newline='') as file:
        return list(csv.DictReader(line for line in file if not line.startswith('#')))


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows with equal keys in columns."""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print('  '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _as_tuple(value: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return value if isinstance(value, tuple) else (value,)


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(['git', *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()

    return git('rev-parse', '--short', 'HEAD') + (' with changes' if git('status', '--porcelain', 'kernels') else '')


def _cpu() -> str:
    try:
        found = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
