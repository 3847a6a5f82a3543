"""Every recipe trains and evaluates: on a CPU, on a few generated images, with a tenth of the width."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

CONFIGS = Path(__file__).parents[2] / 'configs'


class Probe(Hook):
    """Keep the loss of every step and the metrics of the last evaluation."""

    def __init__(self):
        self.losses, self.metrics = [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'])

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def runner_of(recipe, directory: Path) -> Runner:
    cfg = Config.fromfile(recipe.config)
    cfg.merge_from_dict(recipe.options)
    cfg.work_dir = str(directory / 'work_dir')
    cfg.experiment_name = directory.name
    cfg.log_level = 'WARNING'
    return Runner.from_cfg(cfg)


def test_trains_and_evaluates(recipe, tmp_path, monkeypatch):
    recipe.link_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    runner = runner_of(recipe, tmp_path)
    probe = Probe()
    runner.register_hook(probe)
    runner.train()

    assert len(probe.losses) == runner.iter > 0
    assert all(math.isfinite(loss) and loss > 0 for loss in probe.losses)
    learned = {p for p in runner.model.parameters() if p in runner.optim_wrapper.optimizer.state}
    assert learned == set(runner.model.parameters()), 'a parameter got no gradient'
    moments = [state['exp_avg'] for state in runner.optim_wrapper.optimizer.state.values()]
    assert all(moment.isfinite().all() for moment in moments)
    assert any(moment.abs().max() > 0 for moment in moments)
    wanted = {
        'ade20k': 'mIoU',
        'cityscapes': 'mIoU',
        'coco': 'coco/segm_mAP',
        'imagenet': 'accuracy/top1',
    }
    assert wanted[recipe.name] in probe.metrics
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in runner.model.modules())


def test_missing_data_are_named(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=recipe.place) as error:
        runner_of(recipe, tmp_path).train()
    assert 'train_dataloader.dataset.data_root=DIR' in str(error.value)
