"""Small data sets in the layout of the real ones, generated once a test run, and configs cut down to them.

Tests only read the data sets.
"""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (64, 96)  # height and width of all images


@pytest.fixture(autouse=True)
def fresh_mmengine() -> None:
    """Forget what a runner leaves behind in mmengine's globals: default scope, current logger, message hub."""
    if 'mmengine.runner' in sys.modules:
        from mmengine.logging import MessageHub, MMLogger
        from mmengine.registry import DefaultScope

        for manager in (DefaultScope, MMLogger, MessageHub):
            manager._instance_dict.clear()


def write_scene(path: Path, seed: int) -> tuple[slice, slice]:
    """Write a bright rectangle on dark noise as an image, and return the rectangle as an index."""
    rng = np.random.default_rng(seed)
    height, width = SIZE
    top, left = rng.integers(0, height - 40), rng.integers(0, width - 48)
    box = slice(top, top + 36), slice(left, left + 44)
    image = rng.integers(0, 80, (height, width, 3), dtype=np.uint8)
    image[box] += 150
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return box


def write_labels(path: Path, box: tuple[slice, slice], background: int, foreground: int, unlabelled: int) -> None:
    """Write the label map of a scene; its left column is not labelled."""
    labels = np.full(SIZE, background, dtype=np.uint8)
    labels[box] = foreground
    labels[:, 0] = unlabelled
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


@pytest.fixture(scope='session')
def ade20k(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ADEChallengeData2016: 4 training and 2 validation images, label 0 is "unlabelled"."""
    root = tmp_path_factory.mktemp('ade') / 'ADEChallengeData2016'
    for split, short, count in (('training', 'train', 4), ('validation', 'val', 2)):
        for index in range(1, count + 1):
            name = f'{split}/ADE_{short}_{index:08d}'
            box = write_scene(root / 'images' / f'{name}.jpg', seed=index)
            write_labels(root / 'annotations' / f'{name}.png', box, background=3, foreground=150, unlabelled=0)
    return root


@pytest.fixture(scope='session')
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cityscapes: 4 training and 2 validation images in two cities, label maps of train ids."""
    root = tmp_path_factory.mktemp('cityscapes')
    for split, city, count in (('train', 'aachen', 4), ('val', 'lindau', 2)):
        for index in range(count):
            name = f'{split}/{city}/{city}_{index:06d}_000019'
            box = write_scene(root / 'leftImg8bit' / f'{name}_leftImg8bit.png', seed=index)
            labels = root / 'gtFine' / f'{name}_gtFine_labelTrainIds.png'
            write_labels(labels, box, background=0, foreground=13, unlabelled=255)
    return root


@pytest.fixture(scope='session')
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """COCO 2017 with its 80 categories: 4 training and 2 validation images with a polygon and a crowd region each."""
    import sw_mm.compat  # noqa: F401, I001 (mmdetection needs mmcv's operators)
    from mmdet.datasets import CocoDataset

    root = tmp_path_factory.mktemp('coco')
    height, width = SIZE
    for split, count in (('train2017', 4), ('val2017', 2)):
        images, annotations = [], []
        for image_id in range(1, count + 1):
            name = f'{image_id:012d}.jpg'
            rows, columns = write_scene(root / split / name, seed=image_id)
            left, top, right, bottom = map(int, (columns.start, rows.start, columns.stop, rows.stop))
            images.append(dict(id=image_id, file_name=name, height=height, width=width))
            thing = dict(
                id=2 * image_id,
                image_id=image_id,
                category_id=18,
                iscrowd=0,
                bbox=[left, top, right - left, bottom - top],
                area=(right - left) * (bottom - top),
                segmentation=[[left, top, right, top, right, bottom, left, bottom]],
            )
            crowd = dict(
                id=2 * image_id + 1,
                image_id=image_id,
                category_id=1,
                iscrowd=1,
                bbox=[0, 0, 2, height],
                area=2 * height,
                segmentation=dict(size=[height, width], counts=[0, 2 * height, height * (width - 2)]),
            )
            annotations += [thing, crowd]
        categories = [dict(id=index + 1, name=name) for index, name in enumerate(CocoDataset.METAINFO['classes'])]
        file = root / 'annotations' / f'instances_{split}.json'
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return root


@pytest.fixture(scope='session')
def imagenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-1K: 1000 class folders with an image each for training and validation."""
    root = tmp_path_factory.mktemp('imagenet')
    write_scene(root / 'scene.jpg', seed=0)
    for split in ('train', 'val'):
        for label in range(1000):
            folder = root / split / f'n{label:08d}'
            folder.mkdir(parents=True)
            shutil.copy(root / 'scene.jpg', folder / f'n{label:08d}_1.JPEG')
    return root


@pytest.fixture(scope='session')
def imagenet21k(imagenet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet-21K: training images only, here those of ImageNet-1K."""
    root = tmp_path_factory.mktemp('imagenet21k')
    (root / 'train').symlink_to(imagenet / 'train')
    return root


@pytest.fixture(scope='session')
def voc2007(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VOCdevkit: VOC 2007 with 4 training and 2 test images, an object and a difficult one each."""
    root = tmp_path_factory.mktemp('voc') / 'VOCdevkit'
    year, (height, width) = root / 'VOC2007', SIZE
    for split, first, count in (('trainval', 0, 4), ('test', 4, 2)):
        names = [f'{number:06d}' for number in range(first, first + count)]
        for seed, name in enumerate(names, first):
            rows, columns = write_scene(year / 'JPEGImages' / f'{name}.jpg', seed)
            objects = ''.join(
                f'<object><name>{thing}</name><difficult>{difficult}</difficult><bndbox><xmin>{left + 1}</xmin>'
                f'<ymin>{top + 1}</ymin><xmax>{right}</xmax><ymax>{bottom}</ymax></bndbox></object>'
                for thing, difficult, left, top, right, bottom in (
                    ('dog', 0, columns.start, rows.start, columns.stop, rows.stop),
                    ('person', 1, 0, 0, 40, 40),
                )
            )
            file = year / 'Annotations' / f'{name}.xml'
            file.parent.mkdir(exist_ok=True)
            size = f'<size><width>{width}</width><height>{height}</height><depth>3</depth></size>'
            file.write_text(f'<annotation>{size}{objects}</annotation>')
        listed = year / 'ImageSets/Main' / f'{split}.txt'
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text('\n'.join(names))
    return root


# Fixture of each data set's small stand-in, and where configs look for the real one, below the working directory.
DATA = {
    'ADE20KDataset': ('ade20k', 'data/ade/ADEChallengeData2016'),
    'CityscapesDataset': ('cityscapes', 'data/cityscapes'),
    'CocoDataset': ('coco', 'data/coco'),
    'ImageNet': ('imagenet', 'data/imagenet'),
    'ImageNet21k': ('imagenet21k', 'data/imagenet21k'),
    'VOCDataset': ('voc2007', 'data/VOCdevkit'),
}
# The smallest four stages, for backbones that take an architecture as a dict.
DEPTHS, CHANNELS = (1, 1, 2, 1), (8, 16, 32, 64)


def shrink_backbone(backbone: dict) -> tuple[dict[str, object], list[int]]:
    """Return options that make a backbone of the same family small, kernels and all else left, and its widths."""
    from mmengine.registry import MODELS
    from torch import device, empty

    kind = MODELS.get(backbone['type'])
    options = {}
    if 'arch' in backbone:
        arch = kind.arch_settings[backbone['arch'].lower()]
        small = {**arch, 'depths': DEPTHS, 'channels': CHANNELS}
        options = {'arch._delete_': True, **{f'arch.{key}': value for key, value in small.items()}}
        if 'width_factor' in signature(kind).parameters:
            options['width_factor'] = 1.0
        backbone = {**backbone, **options, 'arch': small}
    else:
        options['width_factor'] = 0.1
        backbone = {**backbone, **options}
    arguments = {key: value for key, value in backbone.items() if '.' not in key and key not in ('type', 'init_cfg')}
    with device('meta'):
        widths = [output.shape[1] for output in kind(**arguments).eval()(empty(1, 3, 64, 64))]
    return {f'model.backbone.{key}': value for key, value in options.items()}, widths


def shrink_heads(model: dict, widths: list[int]) -> dict[str, object]:
    """Return options that fit heads to the widths of a small backbone and make them narrow, with few proposals."""
    options = {}
    for name in ('decode_head', 'auxiliary_head'):
        if name in model:
            index = model[name].in_index
            fitting = widths[index] if isinstance(index, int) else [widths[i] for i in index]
            options |= {f'model.{name}.in_channels': fitting, f'model.{name}.channels': 8}
            if 'c1_in_channels' in model[name]:
                options |= {f'model.{name}.c1_in_channels': widths[0], f'model.{name}.c1_channels': 8}
    if 'head' in model:
        options['model.head.in_channels'] = widths[-1]
    if 'neck' in model:
        options['model.neck.in_channels'] = widths
    if 'size' in model.get('data_preprocessor', {}):
        options['model.data_preprocessor.size'] = (64, 64)
    if model.get('test_cfg', {}).get('mode') == 'slide':
        options |= {'model.test_cfg.crop_size': (64, 64), 'model.test_cfg.stride': (43, 43)}
    if 'bbox_head' in model:
        options |= {
            'model.bbox_head.feat_channels': 64,  # group norm has 32 groups
            'model.test_cfg.score_thr': 0.0,
            'model.test_cfg.nms_pre': 16,
            'model.test_cfg.max_per_img': 4,
        }
    if 'roi_head' in model:
        heads, samplers = {'': model.roi_head.bbox_head}, ['']
        if isinstance(model.roi_head.bbox_head, list):
            heads = {f'.{stage}': head for stage, head in enumerate(model.roi_head.bbox_head)}
            samplers = list(heads)
        for stage, head in heads.items():
            options[f'model.roi_head.bbox_head{stage}.fc_out_channels'] = 32
            if 'conv_out_channels' in head:
                options[f'model.roi_head.bbox_head{stage}.conv_out_channels'] = 16
        if 'mask_head' in model.roi_head:
            options['model.roi_head.mask_head.conv_out_channels'] = 16
        options |= {
            **{f'model.train_cfg.rcnn{stage}.sampler.num': 16 for stage in samplers},
            'model.train_cfg.rpn_proposal.max_per_img': 16,
            'model.test_cfg.rpn.max_per_img': 16,
            'model.test_cfg.rcnn.score_thr': 0.0,
            'model.test_cfg.rcnn.max_per_img': 4,
        }
    return options


def shrink_pipeline(place: str, transforms: list) -> dict[str, object]:
    """Return options that bring the transforms of a pipeline to images of 64 x 96."""
    options = {}
    for number, transform in enumerate(transforms):
        here = f'{place}.{number}'
        if isinstance(transform, list):
            options |= shrink_pipeline(here, transform)
            continue
        kind = transform['type']
        if 'transforms' in transform:
            options |= shrink_pipeline(f'{here}.transforms', transform['transforms'])
        elif kind == 'RandomResizedCrop':
            options[f'{here}.scale'] = 64
        elif kind == 'ResizeEdge':
            options[f'{here}.scale'] = 72
        elif kind == 'CenterCrop':
            options[f'{here}.crop_size'] = 64
        elif kind == 'RandomChoiceResize':
            options[f'{here}.scales'] = [(64, 96)]
        elif kind == 'RandomCrop':
            options[f'{here}.crop_size'] = (48, 72) if 'crop_type' in transform else (64, 64)
        elif kind in ('Resize', 'RandomResize') and 'scale' in transform:
            square = not transform.get('keep_ratio')
            options[f'{here}.scale'] = (64, 64) if square else (96, 64)
        elif kind == 'Resize':
            options[f'{here}.scale_factor'] = 1.0
    return options


def shrink_loop(cfg: dict) -> dict[str, object]:
    """Return options for two iterations, or one or two short epochs, and an evaluation."""
    options = {'default_hooks.logger.interval': 1}
    if 'max_iters' in cfg.train_cfg:
        return options | {
            'train_cfg.max_iters': 2,
            'train_cfg.val_interval': 2,
            'default_hooks.checkpoint.interval': 2,
        }
    if cfg.default_scope == 'mmdet':
        return options | {'train_cfg.max_epochs': 1}
    for number, scheduler in enumerate(cfg.param_scheduler):
        edge = 'end' if scheduler.type == 'LinearLR' else 'begin'
        if scheduler.get(edge):
            options[f'param_scheduler.{number}.{edge}'] = 1
    return options | {'train_cfg.max_epochs': 2}


def shrink(cfg) -> dict[str, object]:
    """Return ``--cfg-options`` that cut a config down to seconds on a CPU: everything small, nothing left out."""
    import sw_mm.registry  # noqa: F401

    backbone, widths = shrink_backbone(cfg.model.backbone)
    options = {**backbone, **shrink_heads(cfg.model, widths), **shrink_loop(cfg), 'train_dataloader.batch_size': 2}
    for split in ('train', 'val', 'test'):
        name = f'{split}_dataloader'
        if cfg[name] is None:
            continue
        options |= {f'{name}.num_workers': 0, f'{name}.persistent_workers': False}
        options |= shrink_pipeline(f'{name}.dataset.pipeline', cfg[name].dataset.pipeline)
        if cfg.default_scope == 'mmpretrain':
            options[f'{name}.dataset.indices'] = 4
    return options | shrink_pipeline('tta_pipeline', cfg.get('tta_pipeline', []))


@dataclass(frozen=True)
class Recipe:
    """A config of ``configs/`` with the data set it expects, and options that cut it down to seconds on a CPU.

    Attributes:
        name: Name of the data set's fixture.
        config: Path of the config.
        library: What ``mim`` calls the library that trains it.
        place: Where the config looks for the data set, below the working directory.
        data: Root of a small data set in the right layout.
        options: ``--cfg-options``: a small net and small images, one or two short epochs.
    """

    name: str
    config: Path
    library: str
    place: str
    data: Path
    options: dict[str, object]

    def link_data(self, directory: Path) -> None:
        """Put the data set where the config looks for it when it runs in ``directory``."""
        (directory / self.place).parent.mkdir(parents=True)
        (directory / self.place).symlink_to(self.data)


@pytest.fixture
def recipe_of(request: pytest.FixtureRequest) -> Callable[[Path], Recipe]:
    """Make the recipe of any config."""

    def make(config: Path) -> Recipe:
        from mmengine.config import Config

        cfg = Config.fromfile(config)
        name, place = DATA[cfg.train_dataloader.dataset.type.removeprefix('sw_mm.')]
        return Recipe(name, config, cfg.default_scope, place, request.getfixturevalue(name), shrink(cfg))

    return make


RECIPES = {
    'ade20k': 'upernet_sw_ade20k.py',
    'cityscapes': 'upernet_sw_cityscapes.py',
    'coco': 'cascade_mask_rcnn_sw_coco.py',
    'imagenet': 'sw_imagenet.py',
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest, recipe_of: Callable[[Path], Recipe]) -> Recipe:
    """Each of the four recipes with short names."""
    return recipe_of(Path(__file__).parents[1] / 'configs' / RECIPES[request.param])
