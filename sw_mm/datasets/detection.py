"""mmdetection's data sets with checked data roots."""

from typing import ClassVar

from mmdet.datasets import CocoDataset as _CocoDataset
from mmdet.datasets import VOCDataset as _VOCDataset

from .checked import CheckedDataMixin


class CocoDataset(CheckedDataMixin, _CocoDataset):
    """``mmdet.datasets.CocoDataset`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get train2017.zip, val2017.zip and annotations_trainval2017.zip from https://cocodataset.org/#download and '
        'unpack them in data/coco, which then has train2017/, val2017/ and annotations/ in it.'
    )
    ALSO_CHANGE = (
        ', and the evaluators by `val_evaluator.ann_file=FILE test_evaluator.ann_file=FILE`, which name the full path'
    )


class VOCDataset(CheckedDataMixin, _VOCDataset):
    """``mmdet.datasets.VOCDataset`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get VOCtrainval_06-Nov-2007.tar and VOCtest_06-Nov-2007.tar from '
        'http://host.robots.ox.ac.uk/pascal/VOC/voc2007 and unpack both in data, which makes data/VOCdevkit/VOC2007, '
        'with JPEGImages, Annotations and ImageSets/Main in it.'
    )


class TreeCrownDataset(CocoDataset):
    """The demo's tree crowns, one class in COCO's layout."""

    METAINFO: ClassVar[dict] = {'classes': ('tree',), 'palette': [(255, 215, 0)]}
    HOW_TO_GET = (
        'Make it with `python tools/dataset_converters/treecrowns.py`, or where swmm is installed from a wheel with '
        '`mim run swmm dataset_converters:treecrowns`; both download 21 MB with pip and write data/treecrowns.'
    )
