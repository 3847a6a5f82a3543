"""Look for better ways to cut the Triton kernels up than their plans' rules, and write them as a table.

On a machine with a CUDA device a few configurations of every kernel are timed there. They go to the table that the
kernels look for on this device, or where `--out` says (see `sw_mm.kernels._tuned`)::

    python -m benchmarks.tune
    python -m benchmarks.tune --model SW-T --only '14x14' --dtype bfloat16 --batch 128

Whatever spills or breaks a limit of `benchmarks.aot` is dropped unmeasured. The rest must agree with the reference in
float64, and with each other to the last bit.

Without a device, configurations are ranked by what their machine code lets expect; that is how the tables shipped with
the package came about. Nothing is timed then, so one replaces the rules only if it promises a clear gain::

    python -m benchmarks.tune --static sm_90 --model SW-T --minutes 10

The kernels with most to gain come first. Entries of other kernels that the table has already are kept.
"""

import argparse
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from . import aot, harness, workloads
from .aot import GPUS, Code, Gpu, Job, Plan
from .workloads import Layer, Shift

if TYPE_CHECKING:
    from sw_mm.kernels._triton import Launch
    from sw_mm.kernels._tuned import Config

# Of a multiprocessor, from the data sheets of sm_80 and sm_90: schedulers, and what limits the programs it holds.
_SCHEDULERS = 4
_REGISTERS = 16384  # of a scheduler
_WARPS = 16  # of a scheduler
_PROGRAMS = 32
_LATENCY = 300  # cycles from a load to its first use: an assumption, about that of the L2 cache

_ESTIMATED = 'estimates for {}, batch 64, from machine code and data sheets: nothing was timed'

Draw = Callable[..., Tensor]


def candidates(launch: 'Launch', registers: int, blocks: bool = False) -> 'list[Config]':
    """List a few configurations around a plan's own, each a step away.

    Args:
        launch: Launch as the plan's rules make it.
        registers: Registers of a thread; twice the channels take about twice as many, or some less under a limit.
        blocks: Whether to halve the block of channels too: the code stays the same, so only a clock can tell.
    """
    from sw_mm.kernels._tuned import Config

    constants, block, warps = launch.constants, launch.constants['BLOCK'], launch.num_warps
    found = []
    if 64 * warps <= block:
        found.append(Config(warps=2 * warps))
    if warps > 1 and 2 * registers <= 1.25 * aot.MAX_REGISTERS:
        limit = aot.MAX_REGISTERS if 2 * registers > aot.MAX_REGISTERS else None
        found.append(Config(warps=warps // 2, registers=limit))
    if blocks and warps > 1:
        found.append(Config(block=block // 2, warps=warps // 2))
    for axis, field in (('LINE', 'tile'), ('STRIP', 'tile'), ('COLUMN', 'column_tile')):
        if axis in constants:
            size, tile = constants[axis].size, constants[axis].tile
            tiles = -(-size // tile)
            lengths = [-(-size // count) for count in (tiles - 1, tiles + 1) if count]
            found += [Config(**{field: length}) for length in lengths if 7 <= length <= 32 and length != tile]
    return found


def options(job: Job, batch: int, draw: Draw, timed: bool) -> 'Iterator[tuple[Config, Plan, Code]]':
    """Compile a kernel as its plan's rules say, then its candidates, and give those that break no limit."""
    from sw_mm.kernels._tuned import Config, shipped

    plan = aot.plans(job.layer, job.dtype, batch, {}, draw)[job.kernel]
    code = aot.inspect(aot.compile_launch(plan.launch, job.target))
    yield Config(), plan, code
    key = plan.launch.key
    known = [shipped(job.target)[key]] if key in shipped(job.target) else []
    for config in dict.fromkeys([*known, *candidates(plan.launch, code.resources.registers, timed)]):
        plan = aot.plans(job.layer, job.dtype, batch, {key: config}, draw)[job.kernel]
        code = aot.inspect(aot.compile_launch(plan.launch, job.target))
        if 'FAIL' not in aot.verdict(aot.facts(job, plan.launch, code)):
            yield config, plan, code


def estimate(plan: Plan, code: Code, gpu: Gpu) -> float:
    """Estimate the time of a launch in seconds from its machine code; nothing is timed.

    A multiprocessor holds as many programs as registers and warps allow; in each round of the hot loop its warps wait
    for a load, and then for each other. The busiest multiprocessor decides. Unlike `aot.bounds`, that is no bound:
    it is for comparing two ways to cut up the same kernel.
    """
    registers = -(-code.resources.registers // 8) * 8 * 32
    warps, (programs,) = plan.launch.num_warps, plan.launch.grid
    resident = max(min(_SCHEDULERS * min(_REGISTERS // registers, _WARPS) // warps, _PROGRAMS), 1)
    # Of several hot loops, as for tiles at the border and inside, each does its part.
    instructions, fma, load_bytes = (
        sum(getattr(loop, name) for loop in code.loops) / len(code.loops)
        for name in ('instructions', 'fma', 'load_bytes')
    )
    round_trip = max(instructions, fma * _SCHEDULERS / gpu.fma, load_bytes)
    rounds = plan.padded_macs / 32 / (programs * warps) / fma

    def together(count: int) -> float:
        return rounds * max(-(-count * warps // _SCHEDULERS) * round_trip, round_trip + _LATENCY) if count else 0

    waves, rest = divmod(-(-programs // gpu.multiprocessors), resident)
    return max(plan.data / gpu.bandwidth, (waves * together(resident) + together(rest)) / gpu.clock)


def least(plan: Plan, gpu: Gpu) -> float:
    """Bound the time of whatever cuts the kernel up."""
    return max(plan.data / gpu.bandwidth, plan.macs / 32 / (gpu.fma * gpu.multiprocessors * gpu.clock))


def estimates(job: Job) -> 'dict[Config, float]':
    """Estimate the time of every option of a kernel."""
    return {
        config: estimate(plan, code, GPUS[job.target])
        for config, plan, code in options(job, aot.BATCH, aot.NOTHING, timed=False)
    }


def times(job: Job, batch: int, seconds: float) -> 'dict[Config, float]':
    """Time every option of a kernel on the current device.

    Raises:
        RuntimeError: If one disagrees with the reference in float64, or with another one in a bit.
    """
    expected, first, runs = exact(job.layer, job.dtype, batch, draw)[job.kernel], None, {}
    for config, plan, _ in options(job, batch, draw, timed=True):
        plan.launch.run()
        actual = results(plan.launch)
        harness.right_ones({f'{harness.OURS} {job} {config}': lambda actual=actual: actual}, expected, job.dtype)
        first = first or actual
        if not all(map(torch.equal, actual, first)):
            raise RuntimeError(f'{job} gives other bits with {config} than by the rules')
        runs[config] = plan.launch.run
    return harness.gpu_times(runs, seconds)


def draw(shape: tuple[int, ...], dtype: torch.dtype, device: str = 'cuda') -> Tensor:
    """Draw random numbers, the same ones for the same shape."""
    generator = torch.Generator(device).manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, device=device, dtype=dtype)


def results(launch: 'Launch') -> list[Tensor]:
    """Pick the results out of a launch; those of splits are added up."""
    named = launch.arguments.items()
    return [value.sum(0) if name == 'partial' else value for name, value in named if re.match('out|partial', name)]


def exact(layer: Layer, dtype: torch.dtype, batch: int, draw: Draw) -> dict[str, list[Tensor]]:
    """Compute in float64, by PyTorch's convolutions, what every kernel of `aot.plans` must give."""
    from sw_mm.kernels.depthwise_conv2d.triton import tap_rows

    branches = layer.branches(deploy=False) if isinstance(layer, Shift) else (layer,)
    x = aot.image(batch, layer, layer.size, dtype, draw).double().requires_grad_()
    weights, maps = [], []
    for branch in branches:
        weight, padding = aot.cropped(branch, dtype, draw)
        weights.append(weight.double().requires_grad_())
        maps.append(F.conv2d(F.pad(x, padding), weights[-1], None, branch.stride, 0, branch.dilation, branch.channels))
    grad = aot.image(batch, layer, branches[0].out_size, dtype, draw).double()
    x_grad, *weight_grads = torch.autograd.grad(maps, (x, *weights), [grad] * len(maps))
    weight_grads = [[tap_rows(each, columns=each.shape[2] > each.shape[3])] for each in weight_grads]
    expected = {'forward': [each.detach() for each in maps], 'input_grad': [x_grad]}
    if not isinstance(layer, Shift):
        return {**expected, 'weight_grad': weight_grads[0]}
    bias = draw((layer.channels,), dtype=dtype).double()
    expected['deploy'] = [(maps[0] + maps[1]).detach() + bias[:, None, None]]
    names = (f'weight_grad {name}' for name in ('horizontal', 'vertical', 'centre'))
    return {**expected, **dict(zip(names, weight_grads, strict=True))}


def by_gain(jobs: list[Job], margin: float) -> list[Job]:
    """Sort kernels by what their layers might gain by estimates; leave those out that cannot gain the margin."""
    gains = {}
    for job in jobs:
        plan = aot.plans(job.layer, job.dtype)[job.kernel]
        expected = estimate(plan, aot.inspect(aot.compile_launch(plan.launch, job.target)), GPUS[job.target])
        if least(plan, GPUS[job.target]) <= (1 - margin) * expected:
            gains[job] = job.count * (expected - least(plan, GPUS[job.target]))
    return sorted(gains, key=gains.get, reverse=True)


def main() -> None:
    """Read the command line, look for configurations, write the table after each kernel."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.tune', description=__doc__.splitlines()[0])
    parser.add_argument('--static', choices=list(GPUS), help='estimate for this target instead of timing')
    parser.add_argument('--model', nargs='+', choices=list(workloads.MODELS), default=list(workloads.MODELS))
    parser.add_argument(
        '--dtype', nargs='+', choices=['float32', 'bfloat16', 'float16'], default=['float32', 'bfloat16']
    )
    parser.add_argument('--only', default='', help='regular expression that "kernel layer dtype" must match')
    parser.add_argument('--batch', type=int, default=aot.BATCH, help='images; estimates are for 64 always')
    parser.add_argument('--seconds', type=float, default=0.1, help='time to spend on each configuration')
    parser.add_argument('--minutes', type=float, default=float('inf'), help='processor time after which to stop')
    parser.add_argument('--margin', type=float, default=0.05, help='least gain for which to leave the rules')
    parser.add_argument('--out', type=Path, help='table to write or to add to')
    args = parser.parse_args()
    if not args.static and (not torch.cuda.is_available() or torch.version.hip):
        parser.exit(1, 'benchmarks.tune needs a CUDA device of NVIDIA and finds none; --static does without\n')

    from sw_mm.kernels import _tuned

    device = None if args.static else torch.device('cuda', torch.cuda.current_device())
    target = args.static or _tuned.architecture(device)
    path = args.out or (
        _tuned.own_path(torch.cuda.get_device_name(device)) if device else _tuned.SHIPPED / f'{target}.csv'
    )
    jobs = aot.jobs(args.model, [getattr(torch, name) for name in args.dtype], [target])
    jobs = list({str(job): job for job in jobs if re.search(args.only, str(job))}.values())
    if not jobs:
        parser.error(f'no kernel matches --only {args.only!r}')
    jobs = by_gain(jobs, args.margin) if args.static else jobs
    about = {key: value for key, value in harness.environment().items() if key in ('date', 'commit', 'gpu', 'versions')}
    about['origin'] = _ESTIMATED.format(GPUS[target].name) if args.static else f'median times, batch {args.batch}'
    entries = {tuple(row[name] for name in _tuned.Key._fields): row for row in _rows(path)}
    for job in jobs:
        if sum(os.times()[:4]) > 60 * args.minutes:
            print(f'time is up before {job}')
            break
        key = aot.plans(job.layer, job.dtype)[job.kernel].launch.key
        found = estimates(job) if args.static else times(job, args.batch, args.seconds)
        rules = _tuned.Config()
        usual = rules if args.static else _tuned.shipped(target).get(key, rules)
        best = min(found, key=found.get)
        cells = {name: str(cell) for name, cell in _tuned.cells(key, best).items()}
        name = tuple(cells[name] for name in _tuned.Key._fields)
        entries.pop(name, None)
        if found[best] <= (1 - args.margin) * found.get(usual, float('inf')):
            entries[name] = {**cells, 'rules_us': f'{1e6 * found[rules]:.1f}', 'us': f'{1e6 * found[best]:.1f}'}
            print(f'{job} {target}: {", ".join(entries[name].values())}', flush=True)
        if entries:
            harness.write_csv(path, [entries[name] for name in sorted(entries)], about)
        else:
            path.unlink(missing_ok=True)
    print(f'{path}: {len(entries)} entries')


def _rows(path: Path) -> list[dict[str, str]]:
    return harness.read_csv(path) if path.exists() else []


if __name__ == '__main__':
    main()
