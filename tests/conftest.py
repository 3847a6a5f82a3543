"""Small data sets in the layout of the real ones, generated once a test run. Tests only read them."""

import json
import shutil
import sys
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Recipe:
    """A config of ``configs/`` with the data set it expects, and options that cut it down to seconds on a CPU.

    Attributes:
        name: Name of the data set's fixture.
        config: Path of the config.
        library: What ``mim`` calls the library that trains it.
        place: Where the config looks for the data set, below the working directory.
        data: Root of a small data set in the right layout.
        options: ``--cfg-options``: a tenth of the width, small images, one or two short epochs.
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


LOADERS = {
    f'{split}_dataloader.{option}': value
    for split in ('train', 'val', 'test')
    for option, value in (('num_workers', 0), ('persistent_workers', False))
}
SEGMENTOR = {
    **LOADERS,
    'model.backbone.width_factor': 0.1,
    'model.decode_head.in_channels': [8, 16, 32, 64],
    'model.decode_head.channels': 8,
    'model.auxiliary_head.in_channels': 32,
    'model.auxiliary_head.channels': 8,
    'model.data_preprocessor.size': (64, 64),
    'train_dataloader.dataset.pipeline.2.scale': (96, 64),
    'train_dataloader.dataset.pipeline.3.crop_size': (64, 64),
    'val_dataloader.dataset.pipeline.1.scale': (96, 64),
    'test_dataloader.dataset.pipeline.1.scale': (96, 64),
    'train_cfg.max_iters': 2,
    'train_cfg.val_interval': 2,
    'default_hooks.checkpoint.interval': 2,
    'default_hooks.logger.interval': 1,
}
RECIPES = {
    'ade20k': (
        'upernet_sw_ade20k.py',
        'mmseg',
        'data/ade/ADEChallengeData2016',
        {**SEGMENTOR, 'model.test_cfg.crop_size': (64, 64), 'model.test_cfg.stride': (43, 43)},
    ),
    'cityscapes': ('upernet_sw_cityscapes.py', 'mmseg', 'data/cityscapes', SEGMENTOR),
    'coco': (
        'cascade_mask_rcnn_sw_coco.py',
        'mmdet',
        'data/coco',
        {
            **LOADERS,
            'model.backbone.width_factor': 0.1,
            'model.neck.in_channels': [8, 16, 32, 64],
            **{f'model.roi_head.bbox_head.{stage}.conv_out_channels': 16 for stage in range(3)},
            **{f'model.roi_head.bbox_head.{stage}.fc_out_channels': 32 for stage in range(3)},
            'model.roi_head.mask_head.conv_out_channels': 16,
            **{f'model.train_cfg.rcnn.{stage}.sampler.num': 16 for stage in range(3)},
            'model.train_cfg.rpn_proposal.max_per_img': 16,
            'model.test_cfg.rpn.max_per_img': 16,
            'model.test_cfg.rcnn.score_thr': 0.0,
            'model.test_cfg.rcnn.max_per_img': 4,
            'train_dataloader.dataset.pipeline.3.transforms.0.0.scales': [(64, 96)],
            'train_dataloader.dataset.pipeline.3.transforms.1.0.scales': [(64, 96)],
            'train_dataloader.dataset.pipeline.3.transforms.1.2.scales': [(64, 96)],
            'val_dataloader.dataset.pipeline.1.scale': (96, 64),
            'test_dataloader.dataset.pipeline.1.scale': (96, 64),
            'train_cfg.max_epochs': 1,
            'default_hooks.logger.interval': 1,
        },
    ),
    'imagenet': (
        'sw_imagenet.py',
        'mmpretrain',
        'data/imagenet',
        {
            **LOADERS,
            'model.backbone.width_factor': 0.1,
            'model.head.in_channels': 64,
            'train_dataloader.batch_size': 2,
            'train_dataloader.dataset.pipeline.1.scale': 64,
            'val_dataloader.dataset.pipeline.1.scale': 72,
            'val_dataloader.dataset.pipeline.2.crop_size': 64,
            'test_dataloader.dataset.pipeline.1.scale': 72,
            'test_dataloader.dataset.pipeline.2.crop_size': 64,
            **{f'{split}_dataloader.dataset.indices': 4 for split in ('train', 'val', 'test')},
            'param_scheduler.0.end': 1,
            'param_scheduler.1.begin': 1,
            'train_cfg.max_epochs': 2,
            'default_hooks.logger.interval': 1,
        },
    ),
}


@pytest.fixture(params=RECIPES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each of the four recipes."""
    config, library, place, options = RECIPES[request.param]
    configs = Path(__file__).parents[1] / 'configs'
    return Recipe(request.param, configs / config, library, place, request.getfixturevalue(request.param), options)
