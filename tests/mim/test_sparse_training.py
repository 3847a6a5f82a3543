"""Sparse training as users start it: killed and resumed, and in two processes. Minutes each, hence slow."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

DEMO = Path(__file__).parents[2] / 'configs' / 'demo' / 'upernet_sw_landcover.py'
SLAK = """
model['backbone'] = dict(
    _delete_=True,
    type='sw_mm.SLaK',
    arch=dict(depths=(1, 1, 2, 1), channels=(8, 16, 32, 64)),
    width_factor=1.0,
    drop_path_rate=0.1,
    out_indices=(0, 1, 2, 3),
    gap_before_final_norm=False,
)
"""
NETWORKS = {
    'sw': ("sparsity=0.3, granularity='filter', gap=2", '', 0),
    'slak': ("sparsity=0.4, granularity='weight', targets='all', prune_rate=0.5", SLAK, 2),
}
CONFIG = """
_base_ = {demo!r}
model = dict(
    backbone=dict(arch=dict(depths=(1, 1, 2, 1), channels=(8, 16, 32, 64)), drop_path_rate=0.1),
    decode_head=dict(in_channels=[8, 16, 32, 64], channels=16),
    auxiliary_head=dict(in_channels=32, channels=16),
)
{network}
train_dataloader = dict(batch_size=4, num_workers={workers}, persistent_workers={workers} > 0)
train_cfg = dict(max_iters=12, val_interval=6)
param_scheduler = [dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=0, end=12)]
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(type='sw_mm.AtomicCheckpointHook', interval=3, max_keep_ckpts=2)
)
custom_hooks = [dict(type='sw_mm.SparseTrainingHook', interval=2, {hook})]
"""
pytestmark = pytest.mark.slow


def command(directory: Path, library: str, config: str, *arguments: str, **options: object) -> list[str]:
    mim = str(Path(sys.executable).with_name('mim'))
    overrides = ['--cfg-options', *(f'{key}={value}' for key, value in options.items())] if options else []
    return [mim, 'train', library, config, *arguments, *overrides]


def environment(directory: Path) -> dict[str, str]:
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE', 'PYTHONPATH': str(directory)}


def run(directory: Path, *words: str, **options: object) -> str:
    done = subprocess.run(
        command(directory, *words, **options),
        cwd=directory,
        env=environment(directory),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def run_and_kill(directory: Path, checkpoint: Path, *words: str) -> None:
    """Kill a run, and all processes that it started, as soon as it has written a checkpoint."""
    process = subprocess.Popen(
        command(directory, *words),
        cwd=directory,
        env=environment(directory),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 900
        while not checkpoint.exists():
            assert process.poll() is None, 'training has ended without that checkpoint'
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.fixture
def land_cover(tmp_path) -> Path:
    """A directory with eight tiles for training and two for validation, where the demo looks for them."""
    rng = np.random.default_rng(0)
    for split, count in (('training', 8), ('validation', 2)):
        for folder in ('images', 'annotations'):
            (tmp_path / 'data' / 'landcover' / folder / split).mkdir(parents=True)
        for index in range(count):
            labels = rng.integers(1, 18, (4, 4), dtype=np.uint8).repeat(32, 0).repeat(32, 1)
            image = 14 * labels[..., None] + rng.integers(0, 14, (128, 128, 3), dtype=np.uint8)
            root = tmp_path / 'data' / 'landcover'
            Image.fromarray(image).save(root / 'images' / split / f'{index}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / split / f'{index}.png')
    return tmp_path


def losses(directory: Path) -> dict[int, set[float]]:
    """All losses that any run in a work directory logged for an iteration."""
    seen = {}
    for log in directory.rglob('scalars.json'):
        for line in map(json.loads, log.read_text().splitlines()):
            if 'loss' in line:
                seen.setdefault(line['step'], set()).add(line['loss'])
    return seen


@pytest.mark.parametrize('network', NETWORKS)
def test_killed_and_resumed(land_cover, network):
    """Weights, masks, moments and losses end as those of a run that was left in peace, to the last bit."""
    hook, backbone, workers = NETWORKS[network]
    text = CONFIG.format(demo=str(DEMO), network=backbone, workers=workers, hook=hook)
    (land_cover / 'config.py').write_text(text)
    words = 'mmsegmentation', 'config.py', '--work-dir'
    run(land_cover, *words, 'whole')
    run_and_kill(land_cover, land_cover / 'killed' / 'iter_6.pth', *words, 'killed')
    assert not (land_cover / 'killed' / 'iter_12.pth').exists()
    output = run(land_cover, *words, 'killed', '--resume')
    # The checkpoint is there, but the name of the last one may not have been written yet.
    assert re.search('resumed epoch: 0, iter: [36]', output)
    whole, resumed = (torch.load(land_cover / name / 'iter_12.pth', weights_only=False) for name in ('whole', 'killed'))
    assert_equal(
        *(
            {key: state[key] for key in ('state_dict', 'optimizer', 'param_schedulers', 'sparse')}
            for state in (whole, resumed)
        )
    )
    assert losses(land_cover / 'killed') == losses(land_cover / 'whole')
    assert whole['sparse']['step'] == 12


def assert_equal(a: object, b: object) -> None:
    assert type(a) is type(b)
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for pair in zip(a, b, strict=True):
            assert_equal(*pair)
    else:
        assert a == b


WATCH = """
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class Watch(Hook):
    priority = 'LOWEST'

    def after_train(self, runner):
        hook = next(hook for hook in runner.hooks if type(hook).__name__ == 'SparseTrainingHook')
        masks = {weight.name: weight.mask for weight in hook.weights}
        weights = {weight.name: weight.parameter.detach() for weight in hook.weights}
        torch.save(dict(masks=masks, weights=weights, step=hook.step), f'watched_{get_rank()}.pt')
"""


@pytest.mark.parametrize('recipe', ['imagenet'], indirect=True)
def test_two_processes(tmp_path, recipe):
    """The ImageNet recipe in two processes, and then in one that resumes it."""
    recipe.link_data(tmp_path)
    (tmp_path / 'watch.py').write_text(WATCH)
    (tmp_path / 'config.py').write_text(
        f'_base_ = {str(recipe.config)!r}\n'
        "custom_imports = dict(imports=['sw_mm.registry', 'watch'])\n"
        "custom_hooks = [dict(_base_.custom_hooks[0], interval=1), dict(type='Watch')]\n"
    )
    options = {key: str(value).replace(' ', '') for key, value in recipe.options.items()}
    options |= {'optim_wrapper.accumulative_counts': 1, 'env_cfg.dist_cfg.backend': 'gloo'}
    words = recipe.library, 'config.py', '--work-dir', 'work_dir'
    output = run(tmp_path, *words, '--launcher', 'pytorch', '--gpus', '2', **options)
    assert 'Distributed training: True' in output
    first, second = (torch.load(tmp_path / f'watched_{rank}.pt') for rank in range(2))
    assert_equal(first, second)
    assert first['step'] == 2  # of 4 images each process sees one batch of 2 an epoch
    counts = {name: int(mask.sum()) for name, mask in first['masks'].items()}
    assert sum(counts.values()) == pytest.approx(0.7 * sum(len(mask) for mask in first['masks'].values()), abs=2)
    (tmp_path / 'watched_1.pt').unlink()
    options['train_cfg.max_epochs'] = 3
    assert 'resumed epoch: 2' in run(tmp_path, *words, '--resume', **options)
    resumed = torch.load(tmp_path / 'watched_0.pt')
    assert resumed['step'] == 4
    assert {name: int(mask.sum()) for name, mask in resumed['masks'].items()} == counts
    assert not (tmp_path / 'watched_1.pt').exists()
