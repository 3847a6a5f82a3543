"""mmdetection's data sets with checked data roots."""

from mmdet.datasets import CocoDataset as _CocoDataset

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
