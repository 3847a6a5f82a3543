"""A process that is killed loses what it did since its last checkpoint, and nothing else.

Each killed run is a forked process that kills itself by SIGKILL, at an iteration or at a step of a checkpoint's way to
the disk. The run that resumes it has to reach the weights, masks, moments and losses of one that was never killed, to
the last bit.
"""

import itertools
import multiprocessing
import os
import signal
from collections import defaultdict
from pathlib import Path

import pytest
import torch
from mmengine.fileio import LocalBackend
from mmengine.hooks import Hook

from sw_mm.engine.checkpoint_hook import AtomicLocalBackend

LOOPS = {
    'iterations': dict(
        train_cfg=dict(_delete_=True, type='IterBasedTrainLoop', max_iters=8),
        train_dataloader=dict(sampler=dict(type='InfiniteSampler')),
        default_hooks=dict(checkpoint=dict(by_epoch=False, interval=3, max_keep_ckpts=1)),
    ),
    'epochs': dict(
        train_cfg=dict(by_epoch=True, max_epochs=3),
        default_hooks=dict(checkpoint=dict(interval=1, max_keep_ckpts=1)),
    ),
}
SCHEDULE = [dict(type='CosineAnnealingLR', by_epoch=False, T_max=12)]
LAST = {'iterations': 'iter_8.pth', 'epochs': 'epoch_3.pth'}


class Losses(Hook):
    """Writes down the loss of every iteration, all digits of it, before a checkpoint can be written."""

    def __init__(self, file: Path):
        self.file = file

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        with self.file.open('a') as file:
            file.write(f'{runner.iter} {outputs["loss"].item().hex()}\n')


class Death(Hook):
    """Ends the process after an iteration, and after its checkpoint."""

    priority = 'LOWEST'

    def __init__(self, after: int):
        self.after = after

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter + 1 == self.after:
            die()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def losses(file: Path) -> dict[int, set[str]]:
    seen = defaultdict(set)
    for line in file.read_text().splitlines():
        iteration, loss = line.split()
        seen[int(iteration)].add(loss)
    return seen


def die_on_the_way_to_the_disk(step: int) -> None:
    """Die at the given one of all the steps in which files of checkpoints are written, renamed and deleted."""
    steps = itertools.count()

    def counted(function):
        return lambda *args: die() if next(steps) == step else function(*args)

    put = AtomicLocalBackend.put

    def put_half(self, obj, filepath):
        if next(steps) == step:
            os.fsync = lambda _: die()
            put(self, obj[: len(obj) // 2], filepath)
        put(self, obj, filepath)

    os.fsync = counted(os.fsync)
    Path.replace = counted(Path.replace)
    LocalBackend.remove = counted(LocalBackend.remove)
    AtomicLocalBackend.put = put_half


# A checkpoint and the name of the last one: each is half written, whole but not flushed, not renamed, and renamed with
# the folder not flushed. Later checkpoints also delete the one before.
FIRST = range(8)
SECOND = range(8, 17)


@pytest.fixture
def runs(make_runner, assert_same, tmp_path):
    return Runs(make_runner, assert_same, tmp_path)


class Runs:
    """The runs of a test: one that is left in peace, and others that are killed."""

    def __init__(self, make_runner, assert_same, directory):
        self.make_runner, self.assert_same, self.directory = make_runner, assert_same, directory

    def choose(self, loop, workers=0, **config):
        """Run what the others have to equal."""
        config = {**LOOPS[loop], 'param_scheduler': SCHEDULE, **config}
        loader = dict(num_workers=workers, persistent_workers=workers > 0)
        config['train_dataloader'] = {**config.get('train_dataloader', {}), **loader}
        self.config, self.last = config, LAST[loop]
        self.train('whole')

    def train(self, name, die_after=None, die_at_step=None):
        runner = self.make_runner(name, self.config, resume=True)
        runner.register_hook(Losses(self.directory / f'{name}.txt'))
        if die_after is not None:
            runner.register_hook(Death(die_after))
        if die_at_step is not None:
            die_on_the_way_to_the_disk(die_at_step)
        runner.train()

    def kill(self, name, **when):
        process = multiprocessing.get_context('fork').Process(target=self.train, args=(name,), kwargs=when)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    def finish_and_compare(self, name):
        self.train(name)
        states = [torch.load(self.directory / run / self.last, weights_only=False) for run in ('whole', name)]
        for state in states:
            del state['meta'], state['message_hub']  # times and paths
        assert {'state_dict', 'optimizer', 'param_schedulers', 'sparse'} <= states[0].keys()
        self.assert_same(*states, name)
        assert losses(self.directory / f'{name}.txt') == losses(self.directory / 'whole.txt')
        left = sorted(path.name for path in (self.directory / name).iterdir() if path.is_file())
        assert [file for file in left if file.endswith('.pth')] == [self.last]
        assert 'last_checkpoint' in left


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('workers', [0, 2])
def test_killed_at_any_iteration(runs, loop, workers):
    """One run that is killed again and again, one iteration later each time."""
    runs.choose(loop, workers)
    for iteration in range(1, 9, 1 if workers == 0 else 3):
        runs.kill('killed', die_after=iteration)
    runs.finish_and_compare('killed')


def test_killed_at_any_step_to_the_disk(runs):
    runs.choose('iterations')
    for step in [*FIRST[::3], *SECOND]:
        runs.kill(f'step_{step}', die_at_step=step)
        saved = sorted(path.name for path in (runs.directory / f'step_{step}').glob('*.pth'))
        assert saved == ['iter_3.pth'][: step > 2] + ['iter_6.pth'][: step > 10]
        for name in saved:
            torch.load(runs.directory / f'step_{step}' / name, weights_only=False)
        runs.finish_and_compare(f'step_{step}')


def test_accumulated_gradients_and_averages(runs):
    """Checkpoints fall between updates: gradients wait in them, and the average goes on."""
    hooks = [dict(type='sw_mm.SparseTrainingHook', interval=1, init='snip'), dict(type='EMAHook')]
    runs.choose('iterations', optim_wrapper=dict(accumulative_counts=2), custom_hooks=hooks)
    for iteration in (4, 5, 7):
        runs.kill('killed', die_after=iteration)
    runs.finish_and_compare('killed')
