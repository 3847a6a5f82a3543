"""Every recipe trains and evaluates: on a CPU, on a few generated images, with a small net of its family."""

import math
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

REPOSITORY = Path(__file__).parents[2]


class Probe(Hook):
    """Keep the loss of every step and the metrics of the last evaluation."""

    def __init__(self):
        self.losses, self.metrics = [], {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(outputs['loss'])

    def after_val_epoch(self, runner, metrics=None):
        self.metrics = metrics


def config_of(recipe, directory: Path) -> Config:
    cfg = Config.fromfile(recipe.config)
    cfg.merge_from_dict(recipe.options)
    cfg.work_dir = str(directory / 'work_dir')
    cfg.experiment_name = directory.name
    cfg.log_level = 'WARNING'
    return cfg


def metric_of(cfg: Config) -> str | None:
    evaluator = cfg.val_evaluator
    if evaluator is None:
        return None
    if evaluator.type == 'CocoMetric':
        return 'coco/segm_mAP' if 'segm' in evaluator.metric else 'coco/bbox_mAP'
    return {'IoUMetric': 'mIoU', 'VOCMetric': 'pascal_voc/mAP', 'Accuracy': 'accuracy/top1'}[evaluator.type]


def test_trains_and_evaluates(model, recipe_of, tmp_path, monkeypatch):
    recipe = recipe_of(REPOSITORY / model['Config'])
    recipe.link_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    runner = Runner.from_cfg(config_of(recipe, tmp_path))
    probe = Probe()
    runner.register_hook(probe)
    runner.train()

    assert len(probe.losses) == runner.iter > 0
    assert all(math.isfinite(loss) and loss > 0 for loss in probe.losses)
    learned = {p for p in runner.model.parameters() if p in runner.optim_wrapper.optimizer.state}
    assert learned == set(runner.model.parameters()), 'a parameter got no gradient'
    moments = [
        moment
        for state in runner.optim_wrapper.optimizer.state.values()
        for name, moment in state.items()
        if name in ('exp_avg', 'momentum_buffer')
    ]
    assert len(moments) == len(learned)
    assert all(moment.isfinite().all() for moment in moments)
    assert any(moment.abs().max() > 0 for moment in moments)
    metric = metric_of(runner.cfg)
    assert metric in probe.metrics if metric else not probe.metrics
    assert not any(isinstance(module, torch.nn.SyncBatchNorm) for module in runner.model.modules())


@pytest.mark.parametrize(
    'config',
    [
        'upernet_sw_ade20k.py',
        pytest.param('unireplknet/upernet_unireplknet-t_8xb2-160k_ade20k-512x512.py', marks=pytest.mark.slow),
        pytest.param('replknet/upernet_replknet-31b_32xb2-20k_cityscapes-769x769.py', marks=pytest.mark.slow),
    ],
)
def test_multi_scale_testing(config, recipe_of, tmp_path, monkeypatch):
    """What ``mim test mmseg CONFIG --tta`` does: six sizes, each image mirrored too, one score."""
    recipe = recipe_of(REPOSITORY / 'configs' / config)
    recipe.link_data(tmp_path)
    monkeypatch.chdir(tmp_path)
    cfg = config_of(recipe, tmp_path)
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)
    runner = Runner.from_cfg(cfg)
    seen = []
    runner.model.module.backbone.register_forward_hook(lambda module, args, output: seen.append(len(args[0])))
    metrics = runner.test()
    assert math.isfinite(metrics['mIoU'])
    assert len(seen) >= 12 * len(runner.test_dataloader.dataset)


def test_missing_data_are_named(recipe, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=recipe.place) as error:
        Runner.from_cfg(config_of(recipe, tmp_path)).train()
    assert 'train_dataloader.dataset.data_root=DIR' in str(error.value)
