"""The switches of ``docs/training.md``, set as ``--cfg-options`` and carried out by mmengine's runner.

One small model stands for all in the short run; the recipes of the three libraries follow in the long one.
"""

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

SMALL = {
    'model.backbone.arch': dict(_delete_=True, depths=(1, 1, 1, 1), channels=(8, 16, 32, 64)),
    'model.backbone.width_factor': 1.0,
    'train_dataloader.dataset.indices': 2,
}
in_short_and_long_run = pytest.mark.parametrize(
    ('recipe', 'options'),
    [
        pytest.param('imagenet', SMALL, id='small'),
        *(pytest.param(name, {}, id=name, marks=pytest.mark.slow) for name in ('ade20k', 'coco', 'imagenet')),
    ],
    indirect=['recipe'],
)
cpu_only = pytest.mark.skipif(torch.cuda.is_available(), reason='a GPU computes float16 and sums in another order')


class Record(Hook):
    """Keep the loss of every step, the number of passes of the first block, and in what type the stem computes."""

    def __init__(self):
        self.losses, self.passes, self.dtype = [], 0, None

    def before_train(self, runner):
        backbone = runner.model.backbone
        # Asked before the block runs: a recomputation stops as soon as it has what the backward pass needs.
        backbone.stages[0][0].register_forward_pre_hook(self._count)
        next(m for m in backbone.modules() if isinstance(m, torch.nn.Conv2d)).register_forward_hook(self._note)

    def _count(self, block, inputs):
        self.passes += 1

    def _note(self, conv, inputs, output):
        self.dtype = output.dtype

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append(float(outputs['loss']))


@pytest.fixture
def train(recipe, options, tmp_path):
    """Function that trains the recipe with more options, from the same seed each time; gives runner and record."""

    def run(**switches) -> tuple[Runner, Record]:
        cfg = Config.fromfile(recipe.config)
        cfg.merge_from_dict({**recipe.options, **options, 'randomness': dict(seed=0), **switches})
        cfg.work_dir, cfg.experiment_name = str(tmp_path), f'{tmp_path.name}-{len(switches)}'
        cfg.log_level = 'ERROR'
        cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = cfg.default_hooks.checkpoint = None
        cfg.train_dataloader.dataset.data_root = str(recipe.data)
        runner = Runner.from_cfg(cfg)
        runner.register_hook(record := Record())
        runner.train()
        return runner, record

    return run


@in_short_and_long_run
def test_gradient_checkpointing(train):
    """Every block runs twice a step, and nothing else changes."""
    _, plain = train()
    _, spared = train(**{'model.backbone.with_cp': True})
    assert spared.losses == plain.losses
    assert len(plain.losses) == plain.passes > 1
    assert spared.passes == 2 * plain.passes


@cpu_only
@in_short_and_long_run
def test_mixed_precision(train):
    """Blocks compute in bfloat16, weights stay float32, and the loss is about the same."""
    _, plain = train()
    runner, mixed = train(**{'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.dtype': 'bfloat16'})
    assert isinstance(runner.optim_wrapper, AmpOptimWrapper)
    assert (plain.dtype, mixed.dtype) == (torch.float32, torch.bfloat16)
    assert {parameter.dtype for parameter in runner.model.parameters()} == {torch.float32}
    assert mixed.losses != plain.losses
    assert mixed.losses == pytest.approx(plain.losses, rel=0.05)


@cpu_only
@in_short_and_long_run
def test_compilation(train):
    """Blocks are traced, not run, and the losses are the same."""
    _, plain = train()
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    runner, compiled = train(compile=dict(backend='eager'))
    assert torch._dynamo.utils.counters['stats']['calls_captured'] > 100
    assert hasattr(runner.model.train_step, '_torchdynamo_orig_callable')
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)


@pytest.mark.parametrize('recipe', ['imagenet'], indirect=True)
def test_synchronised_norms(recipe):
    """``norm_cfg`` reaches every batch norm of the backbone. The runner turns them into BatchNorm on one process."""
    cfg = Config.fromfile(recipe.config)
    init_default_scope(cfg.default_scope)
    kinds = {}
    for kind in ('BN', 'SyncBN'):
        cfg.merge_from_dict({'model.backbone.norm_cfg.type': kind})
        with torch.device('meta'):
            backbone = MODELS.build(cfg.model.backbone)
        kinds[kind] = [type(module).__name__ for module in backbone.modules() if hasattr(module, 'running_var')]
    assert set(kinds['BN']) == {'BatchNorm2d'}
    assert kinds['SyncBN'] == ['SyncBatchNorm'] * len(kinds['BN'])
    assert len(kinds['BN']) > 50
