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

from sw_mm.analysis import complexity

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / 'configs'


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
def test_published_size(parse, name, num_paths, millions):
    cfg = parse(f'configs/{name}')
    cfg.model.backbone.num_paths = num_paths
    count = sum(p.numel() for p in build_model(cfg).parameters()) / 1e6
    digits = len(str(millions).partition('.')[2])
    assert round(count, digits) == pytest.approx(millions)


def test_builds_and_learns_in_all_its_parts(model, parse):
    cfg = parse(model['Config'])
    net = build_model(cfg).eval()
    groups = build_optim_wrapper(net, cfg.optim_wrapper).optimizer.param_groups
    assert sum(len(group['params']) for group in groups) == len(list(net.parameters()))
    assert max(group['lr'] for group in groups) == cfg.optim_wrapper.optimizer.lr
    decayed = {param for group in groups if group['weight_decay'] for param in group['params']}
    assert all(param in decayed for param in net.parameters() if param.ndim > 1)
    if cfg.optim_wrapper.get('constructor') or 'flat_decay_mult' in cfg.optim_wrapper.get('paramwise_cfg', {}):
        assert all(param.ndim > 1 for param in decayed)

    images = torch.empty(2, 3, 64, 96, device='meta')
    maps = net.extract_feat(images)
    if hasattr(net, 'decode_head'):
        classes = net.decode_head.num_classes
        assert net.decode_head(maps).shape[:2] == (2, classes)
        assert net.auxiliary_head(maps).shape[:2] == (2, classes)
    elif hasattr(net, 'head'):
        assert net.head(maps).shape == (2, net.head.num_classes)
    else:
        assert [m.shape[1] for m in maps] == [256] * 5


def input_size(cfg: Config) -> int:
    last = cfg.test_dataloader.dataset.pipeline[-2]
    return last.crop_size if last.type == 'CenterCrop' else last.scale[0]


def test_size_and_cost_are_those_of_the_metafile(model, parse):
    """FLOPs and parameters of classifiers are those of the official deploy form; other models have none."""
    metadata = model['Metadata']
    if 'FLOPs' not in metadata:
        assert 'Parameters' not in metadata
        return
    cfg = parse(model['Config'])
    cfg.model.backbone.deploy = 'official'
    counted = complexity(build_model(cfg), (3, input_size(cfg), input_size(cfg)))
    assert counted.params / 1e6 == pytest.approx(metadata['Parameters'] / 1e6, abs=5.1e-4)
    assert counted.macs / 1e9 == pytest.approx(metadata['FLOPs'] / 1e9, rel=5e-5, abs=5.1e-4)


def test_lengths_and_batches_are_those_of_the_metafile(model, parse):
    cfg, metadata = parse(model['Config']), model['Metadata']
    assert cfg.train_cfg.get('max_epochs') == metadata.get('Epochs')
    assert cfg.train_cfg.get('max_iters') == metadata.get('Iterations')
    accumulated = cfg.optim_wrapper.get('accumulative_counts', 1)
    # mmengine scales rates by what it sees of a batch, which is before accumulation.
    assert cfg.auto_scale_lr.base_batch_size * accumulated == metadata['Batch Size']
    assert not cfg.auto_scale_lr.enable
    assert cfg.auto_scale_lr.base_batch_size % cfg.train_dataloader.batch_size == 0
    length = metadata.get('Epochs') or metadata['Iterations']
    assert cfg.param_scheduler[-1].get('end', length) == length, 'the rate is not yet, or long since, at its end'


def test_file_names_tell_batch_and_size(model, parse):
    cfg, stem = parse(model['Config']), Path(model['Config']).stem
    batch = [part for part in stem.split('_') if 'xb' in part]
    if batch:
        gpus, images = batch[0].split('-')[0].split('xb')
        assert cfg.train_dataloader.batch_size == int(images)
        assert cfg.auto_scale_lr.base_batch_size == int(gpus) * int(images)
    size = stem.rpartition('-')[2]
    if size.endswith('px'):
        assert input_size(cfg) == int(size[:-2])
    elif cfg.default_scope == 'mmseg' and batch:
        height, width = map(int, size.split('x'))
        assert cfg.model.data_preprocessor.size == (height, width)
        crop = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'RandomCrop')
        assert tuple(crop.crop_size) == (height, width)


def test_multi_scale_testing_enlarges_single_scale_testing(model, parse):
    cfg = parse(model['Config'])
    if cfg.default_scope != 'mmseg':
        return
    (resize,) = [step for step in cfg.test_dataloader.dataset.pipeline if step.type == 'Resize']
    sizes, flips, *_ = cfg.tta_pipeline[-1].transforms
    # A factor enlarges the image of the file, and those of Cityscapes are as large as single-scale testing has them.
    scales = [step.get('scale') or tuple(round(side * step.scale_factor) for side in (2048, 1024)) for step in sizes]
    assert scales == [tuple(int(side * ratio) for side in resize.scale) for ratio in (0.5, 0.75, 1, 1.25, 1.5, 1.75)]
    assert [flip.prob for flip in flips] == [0.0, 1.0]
    assert cfg.tta_model.type == 'SegTTAModel'


def test_detector_differs_from_convnexts_in_the_backbone_only(parse):
    theirs = Config.fromfile(
        Path(get_installed_path('mmdet'))
        / '.mim/configs/convnext/cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py'
    )
    ours = parse('configs/cascade_mask_rcnn_sw_coco.py')
    for part in ('data_preprocessor', 'rpn_head', 'roi_head', 'train_cfg', 'test_cfg'):
        assert ours.model[part] == theirs.model[part]
    assert ours.train_dataloader.dataset.pipeline == theirs.train_dataloader.dataset.pipeline
    assert ours.train_cfg.max_epochs == theirs.train_cfg.max_epochs
    assert ours.param_scheduler[1] == theirs.param_scheduler[1]


@pytest.mark.parametrize(('name', 'iterations'), [('upernet_sw_ade20k.py', 160e3), ('upernet_sw_cityscapes.py', 80e3)])
def test_learning_rate_is_warm_up_times_poly(parse, name, iterations):
    cfg = parse(f'configs/{name}')
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


def test_mim_reads_the_index(models):
    index = convert2df(load(str(REPOSITORY / 'model-index.yml')))
    assert list(index.index) == [model['Name'] for model in models]
    assert list(index['config']) == [model['Config'] for model in models]
    # `mim download` splits what it finds here, and what it does not find is no string.
    assert list(index['weight']) == [model.get('Weights', '') for model in models]


def test_survives_where_mim_puts_it(model, parse, tmp_path):
    """``mim train`` reads the configs inside the package, ``mim download`` writes each into one file."""
    Config.fromfile(REPOSITORY / 'sw_mm/.mim' / model['Config']).dump(tmp_path / 'downloaded.py')
    downloaded = Config.fromfile(tmp_path / 'downloaded.py')
    assert downloaded.to_dict() == parse(model['Config']).to_dict()
