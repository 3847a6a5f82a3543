"""mmpretrain's data sets with checked data roots."""

from mmpretrain.datasets import ImageNet as _ImageNet

from .checked import CheckedDataMixin


class ImageNet(CheckedDataMixin, _ImageNet):
    """``mmpretrain.datasets.ImageNet`` that says what is missing, and where to get it."""

    HOW_TO_GET = (
        'Get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from https://image-net.org (needs an account) and '
        'unpack them in data/imagenet as train/<wnid>/*.JPEG and val/<wnid>/*.JPEG, one folder for each of the 1000 '
        'classes.'
    )
