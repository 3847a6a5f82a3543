"""Time what sparse training adds to a training step on the CPU, and count what its masks take.

Before the clock starts, a small net has to train to the same bits with all masks on as without the hook, and with half
of them off to keep every count and every zero. Then SW-T and SLaK-T train on noise through mmengine's runner, with the
published settings but for a shorter interval, so that changes of the masks are met::

    python -m benchmarks.sparse
    python -m benchmarks.sparse --only SW-T --batch 2 --steps 9 --out quick.csv
"""

import argparse
import os
import re
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain.structures import DataSample
from torch.utils.data import DataLoader, Dataset

import sw_mm.registry  # noqa: F401
from sw_mm.sparse import SparseTrainingHook
from sw_mm.sparse.hook import _GradientMask
from sw_mm.sparse.masks import pack_bits

from . import harness

MET = 4  # updates between the changes of masks that the clock meets; the overhead is given for the published number
SMALL = dict(type='sw_mm.ShiftWiseNet', arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)))
# Backbone, its channels, arguments of the hook, published interval.
CASES = {
    'SW-T': (dict(type='sw_mm.ShiftWiseNet', arch='tiny'), 640, dict(sparsity=0.3, granularity='filter'), 100),
    'SLaK-T': (
        dict(type='sw_mm.SLaK', arch='tiny'),
        998,
        dict(sparsity=0.4, granularity='weight', targets='all', prune_rate=0.5),
        2000,
    ),
}


class Noise(Dataset):
    """Images of noise, the same ones in every run."""

    metainfo = dict(classes=[str(index) for index in range(10)])  # noqa: RUF012

    def __init__(self, count: int, size: int) -> None:
        self.images = torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=self.images[index], data_samples=DataSample().set_gt_label(index % 10))


class Stopwatch(Hook):
    """Takes the processor's time of every iteration, other hooks included."""

    priority = 'LOWEST'

    def __init__(self) -> None:
        self.taken: list[float] = []

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        self.start = time.process_time()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        self.taken.append(time.process_time() - self.start)


def train(
    backbone: dict, channels: int, sparse: dict | None, steps: int, batch: int, size: int
) -> tuple[Runner, list[float]]:
    """Train a classifier on noise, and return its runner and the time of each step."""

    def collate(samples: list[dict]) -> dict:
        return {key: [sample[key] for sample in samples] for key in samples[0]}

    head = dict(type='LinearClsHead', num_classes=10, in_channels=channels)
    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(
            model=dict(type='ImageClassifier', backbone=dict(backbone), head=head),
            work_dir=folder,
            train_dataloader=DataLoader(Noise(batch, size), batch, collate_fn=collate),
            train_cfg=dict(by_epoch=True, max_epochs=steps),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            default_hooks=dict(checkpoint=None, logger=None),
            custom_hooks=[] if sparse is None else [dict(type='sw_mm.SparseTrainingHook', **sparse)],
            randomness=dict(seed=0),
            default_scope='mmpretrain',
            experiment_name=str(time.time_ns()),
            log_level='ERROR',
        )
        watch = Stopwatch()
        runner.register_hook(watch)
        runner.train()
    return runner, watch.taken


def hook_of(runner: Runner) -> SparseTrainingHook:
    """Find the hook of a runner."""
    return next(hook for hook in runner.hooks if isinstance(hook, SparseTrainingHook))


def check() -> None:
    """Compare a small net with all masks on to one without the hook, and look at one with half of them off.

    Raises:
        RuntimeError: If one of them is wrong.
    """
    plain, _ = train(SMALL, 8, None, 5, 2, 32)
    full, _ = train(SMALL, 8, dict(sparsity=0.0, density_floor=0.0, interval=2), 5, 2, 32)
    for name, value in plain.model.state_dict().items():
        if not torch.equal(value, full.model.state_dict()[name]):
            raise RuntimeError(f'with all masks on, {name} trains to other values than without the hook')
    half, _ = train(SMALL, 8, dict(sparsity=0.5, init='uniform', interval=2), 5, 2, 32)
    sparse = hook_of(half)
    if sum(int(weight.mask.sum()) for weight in sparse.weights) != 2 * round(
        sum(layer.size for layer in sparse.layers) / 2
    ):
        raise RuntimeError('counts have drifted')
    if any((weight.parameter * ~weight.shaped()).any() for weight in sparse.weights):
        raise RuntimeError('a masked weight is not zero')


@contextmanager
def clocked() -> Iterator[dict[str, list[float]]]:
    """Take the time of the hook's own work: masks on gradients, and what follows an update."""
    taken, places = defaultdict(list), [(_GradientMask, '__call__'), (SparseTrainingHook, '_after_step')]
    real = {place: getattr(*place) for place in places}

    def timed(name: str, function: Callable) -> Callable:
        def wrapper(*args: object) -> object:
            start = time.process_time()
            try:
                return function(*args)
            finally:
                taken[name].append(time.process_time() - start)

        return wrapper

    for owner, name in places:
        setattr(owner, name, timed(name, real[owner, name]))
    try:
        yield taken
    finally:
        for owner, name in places:
            setattr(owner, name, real[owner, name])


def measure(name: str, batch: int, size: int, steps: int) -> dict[str, object]:
    """Train a network densely and sparsely, and return a row of the table."""
    backbone, channels, sparse, interval = CASES[name]
    _, dense = train(backbone, channels, None, steps, batch, size)
    with clocked() as taken:
        runner, masked = train(backbone, channels, dict(sparse, interval=MET), steps, batch, size)
    weights = list(hook_of(runner).weights)
    grads, updates = taken['__call__'], taken['_after_step']
    # The shortest of each, as other work on the machine can only add.
    per_step = [sum(grads[i : i + len(weights)]) for i in range(0, len(grads), len(weights))]
    each = min(per_step) + min(updates)
    change = min(updates[MET - 1 :: MET])
    numbers = sum(weight.parameter.numel() for weight in weights)
    return {
        'network': name,
        'batch': batch,
        'size': size,
        'dense_ms': f'{1e3 * min(dense):.1f}',
        'sparse_ms': f'{1e3 * min(masked):.1f}',
        'hook_ms': f'{1e3 * each:.2f}',
        'change_ms': f'{1e3 * change:.1f}',
        'interval': interval,
        'overhead': f'{(each + change / interval) / min(dense):.4f}',
        'masked_numbers': numbers,
        'float_copy_bytes': 4 * numbers,
        'mask_bytes': sum(weight.mask.numel() * weight.mask.element_size() for weight in weights),
        'saved_bytes': sum(len(pack_bits(weight.mask)) for weight in weights),
    }


def main() -> None:
    """Read the command line, check, measure, write."""
    parser = argparse.ArgumentParser(prog='python -m benchmarks.sparse', description=__doc__.splitlines()[0])
    parser.add_argument('--only', default='', help='regular expression that the name of a network must match')
    parser.add_argument('--batch', type=int, default=4, help='images a step (%(default)s)')
    parser.add_argument('--size', type=int, default=224, help='side of the images (%(default)s)')
    parser.add_argument('--steps', type=int, default=13, help=f'steps of each run, above {MET} (%(default)s)')
    parser.add_argument('--out', type=Path, default=harness.RESULTS / 'sparse.csv')
    args = parser.parse_args()
    names = [name for name in CASES if re.search(args.only, name)]
    if not names or args.steps <= MET:
        parser.error(f'--only must match one of {list(CASES)}, and --steps be above {MET}')
    torch.set_num_threads(1)
    about, load, rows = harness.environment(), os.getloadavg()[0], []
    check()
    for name in names:
        rows.append(measure(name, args.batch, args.size, args.steps))
        harness.print_table(rows[-1:])
        about['load'] = f'{load:.1f} before, {os.getloadavg()[0]:.1f} after (processes, average of a minute)'
        harness.write_csv(args.out, rows, about)


if __name__ == '__main__':
    main()
