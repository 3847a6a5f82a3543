"""The weights that the authors of the networks have released, as far as a backbone can start from them.

Names and places are those in the authors' READMEs and, for RepLKNet, in mmpretrain's metafile.
"""

from typing import NamedTuple

from torch import nn


class Release(NamedTuple):
    """One official file.

    Attributes:
        name: What the file is.
        source: Where it is.
    """

    name: str
    source: str


SLAK = 'Google Drive, linked from https://github.com/VITA-Group/SLaK'
SLAK_ABLATIONS = 'SurfDrive, linked from https://github.com/VITA-Group/SLaK'
REPLKNET = 'Google Drive, linked from https://github.com/DingXiaoH/RepLKNet-pytorch'
UNIREPLKNET = 'Hugging Face, https://huggingface.co/DingXiaoH/UniRepLKNet'
MMPRETRAIN = 'https://download.openmmlab.com/mmclassification/v0/replknet'

RELEASES = {
    ('ShiftWiseNet', 'tiny'): [
        Release(
            'SW-T, ImageNet-1K, 83.39 % top-1, known as sw_tiny_in1k_224_acc83.39.pth',
            'Google Drive, https://drive.google.com/file/d/1U4DOZv5V9_7wJdqdicjp0tCmNIdRNJOc',
        ),
    ],
    ('SLaK', 'tiny'): [
        Release('SLaK-T, ImageNet-1K, 300 epochs', SLAK),
        Release('SLaK-T with kernels of 31, 51 or 61, ImageNet-1K, 120 epochs', SLAK_ABLATIONS),
    ],
    ('SLaK', 'small'): [Release('SLaK-S, ImageNet-1K, 300 epochs', SLAK)],
    ('SLaK', 'base'): [Release('SLaK-B, ImageNet-1K, 300 epochs', SLAK)],
    ('RepLKNet', '31b'): [
        Release('RepLKNet-31B_ImageNet-1K_224.pth', REPLKNET),
        Release('RepLKNet-31B_ImageNet-22K.pth', REPLKNET),
        *(
            Release(f'{data}, as mmpretrain hosts it', f'{MMPRETRAIN}/replknet-31B_{file}.pth')
            for data, file in (
                ('ImageNet-1K, 224 pixels', '3rdparty_in1k_20221118-fd08e268'),
                ('ImageNet-1K, 384 pixels', '3rdparty_in1k-384px_20221118-03a170ce'),
                ('ImageNet-22K to 1K, 224 pixels', 'in21k-pre_3rdparty_in1k_20221118-54ed5c46'),
                ('ImageNet-22K to 1K, 384 pixels', 'in21k-pre_3rdparty_in1k-384px_20221118-76c92b24'),
            )
        ),
    ],
    ('RepLKNet', '31l'): [
        Release('RepLKNet-31L_ImageNet-22K.pth', REPLKNET),
        Release('RepLKNet-31L_ImageNet-22K-to-1K_384.pth', REPLKNET),
        Release(
            'the last as mmpretrain hosts it',
            f'{MMPRETRAIN}/replknet-31L_in21k-pre_3rdparty_in1k-384px_20221118-dc3fc07c.pth',
        ),
    ],
    ('RepLKNet', 'xl'): [
        Release('RepLKNet-XL_MegData73M_ImageNet1K.pth', REPLKNET),
        Release(
            'the same as mmpretrain hosts it',
            f'{MMPRETRAIN}/replknet-XL_meg73m-pre_3rdparty_in1k-320px_20221118-88259b1d.pth',
        ),
    ],
    ('RepLKNet', '13'): [Release('RepLKNet-13, ImageNet-1K, 120 epochs', REPLKNET)],
    **{
        ('UniRepLKNet', arch): [Release(f'unireplknet_{arch}_{data}.pth', UNIREPLKNET) for data in files]
        for arch, files in (
            ('a', ['in1k_224_acc77.03']),
            ('f', ['in1k_224_acc78.58']),
            ('p', ['in1k_224_acc80.23']),
            ('n', ['in1k_224_acc81.64']),
            ('t', ['in1k_224_acc83.21']),
            ('s', ['in1k_224_acc83.91', 'in22k_pretrain', 'in22k_to_in1k_384_acc86.44']),
            ('b', ['in22k_pretrain', 'in22k_to_in1k_384_acc87.40']),
            ('l', ['in22k_pretrain', 'in22k_to_in1k_384_acc87.88']),
            ('xl', ['in22k_pretrain', 'in22k_to_in1k_384_acc87.96']),
        )
    },
}


def releases_of(backbone: nn.Module) -> list[Release]:
    """Return the official files for a backbone in its released settings, going by its class and its ``arch``."""
    arch = getattr(backbone, 'arch', None)
    return RELEASES.get((type(backbone).__name__, arch.lower()), []) if isinstance(arch, str) else []
