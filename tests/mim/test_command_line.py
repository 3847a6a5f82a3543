"""The commands a user types, on generated data at the usual places."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SINGLE_THREADED = {'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'}
METRIC = {'mmseg': 'mIoU: ', 'mmdet': 'coco/segm_mAP: ', 'mmpretrain': 'accuracy/top1: '}


class Mim:
    """Runs `mim` for a recipe in a directory that has the data set at its usual place.

    Each call returns what the command printed, and fails with it if the command fails.
    """

    def __init__(self, directory: Path, recipe):
        self.directory, self.recipe = directory, recipe
        recipe.link_data(directory)

    def run(self, command: str, *arguments: str, options: dict[str, object]) -> str:
        line = [Path(sys.executable).with_name('mim'), command, self.recipe.library, self.recipe.config, *arguments]
        overrides = [f'{key}={value}'.replace(' ', '') for key, value in options.items()]
        done = subprocess.run(
            [*map(str, line), '--work-dir', 'work_dir', '--cfg-options', *overrides],
            cwd=self.directory,
            env={**os.environ, **SINGLE_THREADED},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f'{" ".join(done.args)}\n{done.stdout}'
        return done.stdout

    def train(self, *arguments: str, **changes: object) -> str:
        return self.run('train', *arguments, options={**self.recipe.options, **changes})

    def test(self, checkpoint: str) -> str:
        return self.run('test', '--checkpoint', f'work_dir/{checkpoint}', options=self.recipe.options)


@pytest.fixture
def mim(tmp_path, recipe) -> Mim:
    return Mim(tmp_path, recipe)


@pytest.mark.parametrize('recipe', ['ade20k'], indirect=True)
def test_train_resume_test(mim):
    """The whole way in mmsegmentation: train from scratch, go on from the checkpoint, evaluate the result."""
    output = mim.train()
    assert output.count('starts from random weights, as init_cfg.checkpoint is None') == 1
    assert 'Iter(train) [2/2]' in output

    output = mim.train('--resume', **{'train_cfg.max_iters': 4})
    assert 'resumed epoch: 0, iter: 2' in output
    assert 'Iter(train) [3/4]' in output
    assert 'Iter(train) [2/4]' not in output

    assert METRIC['mmseg'] in mim.test('iter_4.pth')


@pytest.mark.parametrize('recipe', ['coco', 'imagenet'], indirect=True)
def test_train_test(mim):
    epochs = mim.recipe.options['train_cfg.max_epochs']
    assert f'Epoch(train) [{epochs}][2/2]' in mim.train()
    assert METRIC[mim.recipe.library] in mim.test(f'epoch_{epochs}.pth')


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['coco', 'imagenet'], indirect=True)
def test_resume(mim):
    epochs = mim.recipe.options['train_cfg.max_epochs']
    mim.train()
    output = mim.train('--resume', **{'train_cfg.max_epochs': epochs + 1})
    assert f'resumed epoch: {epochs}, iter: {2 * epochs}' in output
    assert f'Epoch(train) [{epochs + 1}][2/2]' in output


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['cityscapes', 'coco', 'imagenet'], indirect=True)
def test_two_processes(mim):
    """Over gloo, with the synchronised norms of the recipes turned into local ones."""
    output = mim.train('--launcher', 'pytorch', '--gpus', '2')
    assert 'Distributed training: True' in output
    assert 'GPU number: 2' in output
    assert 'SyncBatchNorm runs on GPUs only' in output
    # Each process has half of the four images.
    assert re.search(r'\(train\) \[2/2\]|\(train\) \[\d\]\[1/1\]', output)
    assert METRIC[mim.recipe.library] in output


@pytest.mark.slow
@pytest.mark.parametrize('recipe', ['ade20k'], indirect=True)
def test_published_size_starts_training(mim):
    """The recipe as it is, SW-T at 512 x 512; only the batch and the number of iterations fit a CPU."""
    output = mim.run(
        'train',
        options={
            'train_dataloader.batch_size': 2,
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 1000,
            'default_hooks.logger.interval': 1,
        },
    )
    assert 'Iter(train) [2/2]' in output
