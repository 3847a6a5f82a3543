"""What ``make smoke STACK=onedl`` asks of a stack: registries, inheritance, and a training step a library.

The first stack passes too, in the long run; what holds on one of them only is said in ``docs/stacks.md``.
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

import sw_mm.registry  # noqa: F401
from sw_mm.backbones import ShiftWiseNet
from sw_mm.compat import stacks

pytestmark = pytest.mark.slow

STACK = stacks.detect()


def test_the_stack_is_sound():
    versions = stacks.installed_versions()
    assert stacks.problems() == []
    assert not set({'openmmlab': stacks.ONEDL, 'onedl': stacks.OPENMMLAB}[STACK]) & versions.keys()


@pytest.mark.parametrize('library', ['mmseg', 'mmdet', 'mmpretrain'])
def test_registries(library):
    models = import_module(f'{library}.registry').MODELS
    assert models.get('sw_mm.ShiftWiseNet') is ShiftWiseNet
    assert models.get('ShiftWiseNet') is ShiftWiseNet


@pytest.mark.parametrize(
    'base',
    [
        'mmseg::upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
        'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'mmpretrain::resnet/resnet50_8xb32_in1k.py',
    ],
)
def test_inheritance(base, tmp_path):
    (tmp_path / 'config.py').write_text(f'_base_ = {base!r}')
    assert Config.fromfile(tmp_path / 'config.py').model.backbone.depth == 50


@pytest.mark.parametrize('recipe', ['ade20k', 'coco', 'imagenet'], indirect=True)
def test_a_training_step(recipe, tmp_path):
    cfg = Config.fromfile(recipe.config)
    cfg.merge_from_dict(recipe.options)
    cfg.work_dir, cfg.experiment_name, cfg.log_level = str(tmp_path), tmp_path.name, 'ERROR'
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = cfg.default_hooks.checkpoint = None
    cfg.train_dataloader.dataset.data_root = str(recipe.data)
    runner = Runner.from_cfg(cfg)
    runner.train()
    assert runner.iter > 0
    parameters = set(runner.model.parameters())
    assert parameters == {p for p in parameters if p in runner.optim_wrapper.optimizer.state}
    assert all(parameter.isfinite().all() for parameter in parameters)


def mim(*arguments, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-m', 'mim', *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'OMP_WAIT_POLICY': 'PASSIVE'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
    )


@pytest.mark.parametrize('recipe', ['ade20k'], indirect=True)
def test_mim_trains_and_resumes(recipe, tmp_path):
    recipe.link_data(tmp_path)
    options = [f'{key}={value}'.replace(' ', '') for key, value in recipe.options.items()]
    for more, end in (([], 2), (['--resume'], 4)):
        command = ['train', recipe.library, recipe.config, '--work-dir', 'work_dir', *more]
        done = mim(*command, '--cfg-options', *options, f'train_cfg.max_iters={end}', cwd=tmp_path)
        assert done.returncode == 0, done.stdout
        assert f'Iter(train) [{end}/{end}]' in done.stdout


@pytest.mark.skipif(STACK != 'onedl', reason='a limit of onedl-mim')
def test_a_name_that_onedl_mim_does_not_know(tmp_path):
    """If this fails, the name works by now, and the page should not warn of it any more."""
    done = mim('train', 'mmdet', 'config.py', cwd=tmp_path)
    assert done.returncode != 0
    assert 'unique package' in done.stdout
