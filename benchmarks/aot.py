"""Compile the Triton kernels for GPUs that are not there, and prove from the machine code what they are made of.

Every kernel is compiled for every layer of the models, for sm_80 and sm_90. The table tells registers, spills, shared
memory, the share of multiply-adds in the hot loop, and a bound on speed. No GPU is needed::

    python -m benchmarks.aot                              # everything; writes results/aot.csv
    python -m benchmarks.aot --check --workers 2          # the same, failing if a limit is broken without a reason
    python -m benchmarks.aot --model SLaK-T --only 'forward.*k51x5' --dtype float32 --target sm_90 --out strip.csv

Kernels come out of Triton's cache, and what was read from their code out of a cache of this project, if they did not
change since the last time.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sw_mm.kernels._cache import cache_folder
from sw_mm.kernels.depthwise_conv2d.geometry import crop_to_map

from . import harness, sass, workloads
from .workloads import Depthwise, Layer, Shift

if TYPE_CHECKING:
    from sw_mm.kernels._triton import Launch
    from sw_mm.kernels._tuned import Table

BATCH = 64
NOTHING = partial(torch.empty, device='meta')
DTYPES = (torch.float32, torch.bfloat16)
MAX_REGISTERS = 128
# Least share of multiply-adds in the hot loop: whole blocks of channels, and with a mask for the last ones.
MIN_SHARE = {torch.float32: (0.75, 0.65), torch.bfloat16: (0.60, 0.55), torch.float16: (0.60, 0.55)}

# Why a kernel may break a limit: the limit (a spill has no excuse), a pattern in "kernel layer dtype", the reason.
REASONS = (
    (
        'share',
        r' k(3x3|5x5|7x7 d2)\b|^weight_grad centre ',
        'a small branch: few taps a line, few multiply-adds a load',
    ),
)


@dataclass(frozen=True)
class Gpu:
    """What a bound needs to know of a GPU; frequencies are the highest of its data sheet.

    Attributes:
        name: Product.
        capability: As in ``sm_90``.
        multiprocessors: Their number.
        clock: Cycles a second.
        fma: Multiply-adds of a warp that a multiprocessor starts in a cycle.
        bandwidth: Bytes a second of the memory.
    """

    name: str
    capability: int
    multiprocessors: int
    clock: float
    fma: int
    bandwidth: float


GPUS = {
    'sm_80': Gpu('A100 SXM 80 GB', 80, 108, 1.41e9, 2, 2.039e12),
    'sm_90': Gpu('H100 SXM', 90, 132, 1.98e9, 4, 3.35e12),
}
_NAME = ('model', 'kernel', 'layer', 'dtype')
_ISSUES = 4  # instructions of a warp that a multiprocessor starts in a cycle
_L1_BYTES = 128  # bytes that a multiprocessor loads in a cycle


@dataclass(frozen=True)
class Code:
    """What the machine code of a kernel says."""

    resources: sass.Resources
    loops: list[sass.Mix]


@dataclass(frozen=True)
class Job:
    """One kernel to compile."""

    model: str
    count: int
    layer: Layer
    kernel: str
    dtype: torch.dtype
    target: str

    def __str__(self) -> str:
        return f'{self.kernel} {self.layer} {str(self.dtype).removeprefix("torch.")}'


@dataclass(frozen=True)
class Plan:
    """A launch, and the least work that it does: multiply-accumulates on data, and bytes moved."""

    launch: 'Launch'
    macs: int
    data: int

    @property
    def padded_macs(self) -> float:
        """Multiply-accumulates of all threads, idle ones of a partial block of channels included."""
        channels, block = (self.launch.constants[name] for name in ('C', 'BLOCK'))
        return self.macs * -(-channels // block) * block / channels


def plans(
    layer: Layer,
    dtype: torch.dtype,
    batch: int = BATCH,
    table: 'Table | None' = None,
    draw: Callable[..., Tensor] = NOTHING,
) -> dict[str, Plan]:
    """Plan every launch of a layer, by the name of the kernel.

    Args:
        layer: Layer.
        dtype: Floating type of its tensors.
        batch: Images.
        table: Table of configurations; without one the rules decide.
        draw: Makes the tensors from a shape and a dtype; by default on the meta device, so nothing is computed.
    """
    from sw_mm.kernels._tuned import use_table

    with use_table(table or {}):
        return (_plan_shift if isinstance(layer, Shift) else _plan_depthwise)(layer, dtype, batch, draw)


def compile_launch(launch: 'Launch', target: str) -> bytes:
    """Compile a planned launch for a target such as ``sm_90``; gives the cubin."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    source = ASTSource(launch.kernel, launch.signature(), constexprs=launch.constexprs(), attrs=launch.attributes())
    gpu = GPUTarget('cuda', int(target.removeprefix('sm_')), 32)
    return triton.compile(source, target=gpu, options=launch.options).asm['cubin']


def inspect(cubin: bytes) -> Code:
    """Disassemble a cubin, or remember what came out when it was disassembled before."""
    key = hashlib.sha256(Path(sass.__file__).read_bytes() + cubin).hexdigest()
    folder = cache_folder('aot')
    known = folder / f'{key}.json'
    if known.exists():
        code = json.loads(known.read_text())
        return Code(sass.Resources(**code['resources']), [sass.Mix(**loop) for loop in code['loops']])
    folder.mkdir(parents=True, exist_ok=True)
    binary = known.with_suffix(f'.{os.getpid()}.cubin')
    binary.write_bytes(cubin)
    try:
        text = sass.disassemble(binary)
    finally:
        binary.unlink()
    code = Code(sass.resources(text), sass.hot_loops(sass.instructions(text)))
    known.write_text(json.dumps(asdict(code)))
    return code


def bounds(macs: float, data: int, loops: Sequence[sass.Mix], gpu: Gpu) -> dict[str, float]:
    """Bound the time of a pass from below, in seconds, by each thing that takes time.

    No speed was measured: these are times that no run can beat. Of several hot loops the leanest is assumed.

    Args:
        macs: Multiply-accumulates that the threads do, idle ones of a partial block included.
        data: Bytes that have to travel between memory and multiprocessors.
        loops: Hot loops.
        gpu: Where it would run.
    """
    cycles = gpu.multiprocessors * gpu.clock
    warps = macs / 32
    return {
        'memory': data / gpu.bandwidth,
        'multiply-adds': warps / (gpu.fma * cycles),
        'instructions': warps * min(loop.instructions / loop.fma for loop in loops) / (_ISSUES * cycles),
        'loads': warps * min(loop.load_bytes / loop.fma for loop in loops) * 32 / (_L1_BYTES * cycles),
    }


def build(job: Job) -> dict[str, object]:
    """Compile a kernel as it would be launched on its target, read its code, and give its row of the table."""
    from sw_mm.kernels._tuned import shipped

    table = shipped(job.target)
    plan = plans(job.layer, job.dtype, table=table)[job.kernel]
    code = inspect(compile_launch(plan.launch, job.target))
    times = bounds(plan.padded_macs, plan.data, code.loops, GPUS[job.target])
    limit = max(times, key=times.get)
    row = facts(job, plan.launch, code)
    return {
        **row,
        'tuned': int(plan.launch.key in table),
        'memory_us': round(1e6 * times['memory'], 1),
        'bound_us': round(1e6 * times[limit], 1),
        'bound_by': limit,
        'verdict': verdict(row),
    }


def facts(job: Job, launch: 'Launch', code: Code) -> dict[str, object]:
    """Name a kernel, its configuration, and what :func:`verdict` needs to know of its code."""
    loop = min(code.loops, key=lambda loop: loop.fma_share)
    return {
        'model': job.model,
        'count': job.count,
        'kernel': job.kernel,
        'layer': str(job.layer),
        'dtype': str(job.dtype).removeprefix('torch.'),
        'target': job.target,
        'block': launch.constants['BLOCK'],
        'warps': launch.num_warps,
        **asdict(code.resources),
        'channel_tail': int(launch.constants['C'] % launch.constants['BLOCK'] > 0),
        'loop_instructions': loop.instructions,
        'loop_fma': loop.fma,
        'loop_mma': loop.mma,
        'fma_share': round(loop.fma_share, 3),
    }


def verdict(row: dict[str, object], reasons: Sequence[tuple[str, str, str]] = REASONS) -> str:
    """Judge a row: ``ok``, or the limits it breaks, each with its written reason or with ``FAIL``."""
    least = MIN_SHARE[getattr(torch, row['dtype'])][row['channel_tail']]
    broken = {
        'spill': row['stack'] + row['local'] > 0,
        'registers': row['registers'] > MAX_REGISTERS,
        'share': not row['loop_mma'] and row['fma_share'] < least,
    }
    name = ' '.join(str(row[key]) for key in ('kernel', 'layer', 'dtype'))
    remarks = []
    for limit in (limit for limit, is_broken in broken.items() if is_broken):
        known = [why for of, pattern, why in reasons if limit == of != 'spill' and re.search(pattern, name)]
        remarks.append(f'{limit}: {known[0] if known else "FAIL"}')
    return '; '.join(remarks) or 'ok'


def jobs(models: Iterable[str], dtypes: Iterable[torch.dtype], targets: Iterable[str]) -> list[Job]:
    """List every kernel of the models for every dtype and target."""
    return [
        Job(model, count, layer, kernel, dtype, target)
        for model, dtype, target in product(models, dtypes, targets)
        for layer, count in workloads.MODELS[model]().items()
        for kernel in plans(layer, dtype)
    ]


def build_all(work: Sequence[Job], workers: int = 1) -> Iterator[dict[str, object]]:
    """Give the rows of many kernels in order, in several processes if wanted, with progress on stderr if it shows."""
    with ProcessPoolExecutor(workers, get_context('spawn')) if workers > 1 else nullcontext() as pool:
        rows = pool.map(build, work) if pool else map(build, work)
        for done, (job, row) in enumerate(zip(work, rows, strict=True), start=1):
            if sys.stderr.isatty():
                print(f'\r{done}/{len(work)} {job.model} {job} {job.target}\033[K', end='', file=sys.stderr)
            yield row
    if sys.stderr.isatty():
        print(file=sys.stderr)


def summary(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """Sum up a table: per model, dtype, target and kernel, extremes of the code and the time of all its layers."""
    groups: dict[tuple, list] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in ('model', 'dtype', 'target', 'kernel')), []).append(row)
    return [
        {
            **dict(zip(('model', 'dtype', 'target', 'kernel'), key, strict=True)),
            'layers': len(group),
            'registers': max(row['registers'] for row in group),
            'spills': sum(row['stack'] + row['local'] > 0 for row in group),
            'least_share': min(row['fma_share'] for row in group),
            'bound_ms': f'{sum(row["count"] * row["bound_us"] for row in group) / 1e3:.2f}',
            'memory_ms': f'{sum(row["count"] * row["memory_us"] for row in group) / 1e3:.2f}',
            'remarks': sum(row['verdict'] != 'ok' for row in group),
        }
        for key, group in groups.items()
    ]


def main() -> None:
    """Read the command line, compile, write, judge."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.aot', description=__doc__.splitlines()[0])
    parser.add_argument('--model', nargs='+', choices=list(workloads.MODELS), default=list(workloads.MODELS))
    parser.add_argument(
        '--dtype', nargs='+', choices=['float32', 'bfloat16', 'float16'], default=['float32', 'bfloat16']
    )
    parser.add_argument('--target', nargs='+', choices=list(GPUS), default=list(GPUS))
    parser.add_argument('--only', default='', help='regular expression that "kernel layer dtype" must match')
    parser.add_argument('--check', action='store_true', help='fail if a limit is broken without a written reason')
    parser.add_argument('--workers', type=int, default=1, help='processes that compile at the same time')
    parser.add_argument('--out', type=Path, default=harness.RESULTS / 'aot.csv')
    args = parser.parse_args()
    work = jobs(args.model, [getattr(torch, name) for name in args.dtype], args.target)
    work = [job for job in work if re.search(args.only, str(job))]
    if not work:
        parser.error(f'no kernel matches --only {args.only!r}')
    about = {key: value for key, value in harness.environment().items() if key in ('date', 'commit', 'versions')}
    about['bounds'] = f'batch {BATCH}, computed from the code and data sheets: no run can be faster; nothing was timed'
    about |= {target: str(gpu) for target, gpu in GPUS.items() if target in args.target}
    rows = list(build_all(work, args.workers))
    harness.write_csv(args.out, rows, about)
    harness.print_table(summary(rows))
    failures = [row for row in rows if 'FAIL' in row['verdict']]
    if failures:
        print()
        harness.print_table(
            [{k: row[k] for k in (*_NAME, 'target', 'registers', 'fma_share', 'verdict')} for row in failures]
        )
    if failures and args.check:
        raise SystemExit(f'{len(failures)} of {len(rows)} kernels break a limit')


def _plan_depthwise(layer: Depthwise, dtype: torch.dtype, batch: int, draw: Callable[..., Tensor]) -> dict[str, Plan]:
    from sw_mm.kernels.depthwise_conv2d import triton as kernels

    x, grad = (image(batch, layer, size, dtype, draw) for size in (layer.size, layer.out_size))
    weight, padding = cropped(layer, dtype, draw)
    geometry = (layer.stride,) * 2, padding, (layer.dilation,) * 2
    launches = {
        'forward': kernels.plan_forward(x, weight, None, *geometry),
        'input_grad': kernels.plan_input_grad(grad, weight, layer.size, *geometry),
        'weight_grad': kernels.plan_weight_grad(x, grad, tuple(weight.shape[2:]), *geometry),
    }
    work = layer.useful_macs(batch), layer.min_bytes(batch, dtype.itemsize)
    return {name: Plan(launch, *work) for name, launch in launches.items()}


def _plan_shift(layer: Shift, dtype: torch.dtype, batch: int, draw: Callable[..., Tensor]) -> dict[str, Plan]:
    """Training form with its gradients, those of the three kernels being depthwise, and deploy form."""
    from sw_mm.kernels.shift_conv2d import triton as kernels

    branches = layer.branches(deploy=False)
    x = image(batch, layer, layer.size, dtype, draw)
    weights, paddings = zip(*(cropped(branch, dtype, draw) for branch in branches), strict=True)
    bias = draw((layer.channels,), dtype=dtype)
    training = layer.useful_macs(batch), layer.min_bytes(batch, dtype.itemsize)
    deploy = layer.useful_macs(batch, deploy=True), layer.min_bytes(batch, dtype.itemsize, deploy=True)
    return {
        'forward': Plan(kernels.plan_maps(x, weights, paddings), *training),
        'deploy': Plan(kernels.plan_folded(x, weights[:2], bias, paddings[:2]), *deploy),
        'input_grad': Plan(kernels.plan_input_grad([x] * 3, weights, paddings), *training),
        **{
            f'weight_grad {name}': _plan_depthwise(branch, dtype, batch, draw)['weight_grad']
            for name, branch in zip(('horizontal', 'vertical', 'centre'), branches, strict=True)
        },
    }


def image(batch: int, layer: Layer, size: tuple[int, int], dtype: torch.dtype, draw: Callable[..., Tensor]) -> Tensor:
    """Draw a map, channels_last."""
    return draw((batch, layer.channels, *size), dtype=dtype).contiguous(memory_format=torch.channels_last)


def cropped(
    layer: Depthwise, dtype: torch.dtype, draw: Callable[..., Tensor]
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """Draw kernels and give the padding, as they reach the Triton backend: cropped to the map."""
    weight = draw((layer.channels, 1, *layer.kernel_size), dtype=dtype)
    return crop_to_map(weight, layer.size, (layer.stride,) * 2, layer.padding, (layer.dilation,) * 2)


if __name__ == '__main__':
    main()
