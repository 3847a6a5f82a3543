"""The weights that the authors of the networks have released."""

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


RELEASES = {
    ('ShiftWiseNet', 'tiny'): Release(
        'SW-T, ImageNet-1K, 83.39 % top-1, known as sw_tiny_in1k_224_acc83.39.pth',
        'Google Drive, https://drive.google.com/file/d/1U4DOZv5V9_7wJdqdicjp0tCmNIdRNJOc',
    ),
}


def official_release(backbone: nn.Module) -> Release | None:
    """Return the official file for a backbone in its released settings, going by its class and its ``arch``."""
    arch = getattr(backbone, 'arch', None)
    return RELEASES.get((type(backbone).__name__, arch.lower())) if isinstance(arch, str) else None
