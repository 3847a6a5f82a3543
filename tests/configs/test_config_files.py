"""What the config files say: published sizes, published schedules, and an index that mim can read."""

from pathlib import Path

import pytest
import torch
from mim.commands.search import convert2df
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.utils import get_installed_path
from modelindex.load_model_index import load

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / 'configs'
INDEX = convert2df(load(str(REPOSITORY / 'model-index.yml')))


def build_model(cfg: Config) -> torch.nn.Module:
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):  # no memory, no initialisation
        return MODELS.build(cfg.model)


@pytest.mark.parametrize(
    ('name', 'num_paths', 'millions'),
    [
        ('sw_imagenet.py', 1, 31.003),
        ('sw_imagenet.py', 2, 31.790),
        ('shiftwise/sw-small_8xb64-accum8-300e_in1k.py', 1, 55.990),
        ('upernet_sw_ade20k.py', 1, 61.73),
        ('upernet_sw_ade20k.py', 2, 62.51),
        ('shiftwise/upernet_sw-small_8xb2-160k_ade20k-512x512.py', 1, 88),
    ],
)
def test_published_size(name, num_paths, millions):
    cfg = Config.fromfile(CONFIGS / name)
    cfg.model.backbone.num_paths = num_paths
    count = sum(p.numel() for p in build_model(cfg).parameters()) / 1e6
    digits = len(str(millions).partition('.')[2])
    assert round(count, digits) == pytest.approx(millions)


@pytest.mark.parametrize('config', INDEX['config'])
def test_optimizer_takes_every_parameter(config):
    cfg = Config.fromfile(REPOSITORY / config)
    model = build_model(cfg)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(model.parameters()))
    assert all(param.ndim > 1 for group in groups if group['weight_decay'] for param in group['params'])
    assert max(group['lr'] for group in groups) == cfg.optim_wrapper.optimizer.lr


def test_detector_differs_from_convnexts_in_the_backbone_only():
    theirs = Config.fromfile(
        Path(get_installed_path('mmdet'))
        / '.mim/configs/convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
    )
    ours = Config.fromfile(CONFIGS / 'cascade_mask_rcnn_sw_coco.py')
    for part in ('data_preprocessor', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        assert ours.model[part] == theirs.model[part]
    assert ours.train_dataloader.dataset.pipeline == theirs.train_dataloader.dataset.pipeline
    assert ours.train_cfg.max_epochs == theirs.train_cfg.max_epochs
    assert ours.param_scheduler[1] == theirs.param_scheduler[1]


@pytest.mark.parametrize(('name', 'iterations'), [('upernet_sw_ade20k.py', 160e3), ('upernet_sw_cityscapes.py', 80e3)])
def test_learning_rate_is_warm_up_times_poly(name, iterations):
    cfg = Config.fromfile(CONFIGS / name)
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([parameter], lr=cfg.optim_wrapper.optimizer.lr)
    schedulers = [PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer)) for scheduler in cfg.param_scheduler]
    for step in range(2500):
        poly = 1e-4 * (1 - step / iterations)
        warm_up = 1e-6 + (1 - 1e-6) * min(step / 1499, 1)
        assert optimizer.param_groups[0]['lr'] == pytest.approx(poly * warm_up, rel=1e-4)
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('name', INDEX.index)
def test_index_names_a_config(name):
    assert name == name.lower(), 'mim looks names up in lower case'
    path = REPOSITORY / INDEX.loc[name, 'config']
    assert path.stem == name
    assert 'ShiftWiseNet' in Config.fromfile(path).model.backbone.type


def test_every_config_is_in_the_index():
    files = {path for folder in ('.', 'shiftwise') for path in (CONFIGS / folder).glob('*.py')}
    assert files == {REPOSITORY / config for config in INDEX['config']}


@pytest.mark.parametrize('config', INDEX['config'])
def test_survives_where_mim_puts_it(config, tmp_path):
    """``mim train`` reads the configs inside the package, ``mim download`` writes each into one file."""
    Config.fromfile(REPOSITORY / 'sw_mm/.mim' / config).dump(tmp_path / 'downloaded.py')
    downloaded = Config.fromfile(tmp_path / 'downloaded.py')
    assert downloaded.to_dict() == Config.fromfile(REPOSITORY / config).to_dict()
