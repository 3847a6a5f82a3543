"""Small nets of every family, and files as the official code of each writes them."""

import logging
from collections.abc import Callable, Iterator

import pytest
import torch
from mmengine.logging import MMLogger
from torch import Tensor, nn

from sw_mm import backbones

CHANNELS = (8, 8, 16, 16)
ARCH = dict(depths=(1, 1, 2, 1), channels=CHANNELS)

# Class, and the arguments of a small net with every kind of layer that the official one has.
NETS = {
    'sw': ('ShiftWiseNet', dict(arch=ARCH)),
    'sw-v1': ('ShiftWiseNet', dict(arch=dict(ARCH, design='v1'), num_paths=3, small_kernel=5, ghost_ratio=0.5)),
    'slak': ('SLaK', dict(arch=ARCH, width_factor=1.0, kernel_size=(13, 11, 9, 7))),
    'slak-dense': ('SLaK', dict(arch='tiny', width_factor=1.3, kernel_size=(13, 11, 9, 7), decomposed=False)),
    'slak-bare': ('SLaK', dict(arch=ARCH, width_factor=1.0, kernel_size=(13, 11, 9, 7), norm_cfg=None)),
    'convnext-31': ('LargeKernelConvNeXt', dict(arch=ARCH, kernel_size=(13, 11, 9, 7))),
    'convnext': ('LargeKernelConvNeXt', dict(arch=ARCH, kernel_size=(7, 7, 7, 7), small_kernel=None)),
    'replknet': ('RepLKNet', dict(arch=dict(ARCH, dw_ratio=1.5), kernel_size=(13, 11, 9, 7))),
    'unireplknet': ('UniRepLKNet', dict(arch=ARCH)),
    'unireplknet-own': (
        'UniRepLKNet',
        dict(arch=ARCH, kernel_size=(5, 19, (9, 0), 7), branches={5: ((3, 1),), 9: (), 19: ((7, 3), (3, 9))}),
    ),
    'mobilenet': ('LargeKernelMobileNetV2', dict(width_factor=0.25, kernel_size=9, small_kernel=3)),
}
DENSE = dict(out_indices=(0, 1, 2, 3), gap_before_final_norm=False)


def build(net: str, **kwargs) -> nn.Module:
    """Build a small net by its name in ``NETS``."""
    family, arguments = NETS[net]
    return getattr(backbones, family)(**{**arguments, **kwargs})


def randomise(model: nn.Module) -> nn.Module:
    """Give every entry of the state dict a value that no initialisation would, and variances a sensible one."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 0.5 + ('var' in name) * 0.5)
        else:
            tensor.fill_(7)
    return model


def official(model: nn.Module, num_classes: int = 10) -> dict[str, Tensor]:
    """Return what the official code saves for a classifier: the backbone and a head."""
    state_dict = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        features = model.eval()(torch.rand(1, 3, 64, 64))[0].shape[1]
    head = {'head.weight': torch.rand(num_classes, features), 'head.bias': torch.rand(num_classes)}
    return {**state_dict, **head}


def prefixed(prefix: str, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state_dict.items()}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare two state dicts: names, their order, and every bit."""
    assert list(actual) == list(expected)
    for name, tensor in actual.items():
        assert tensor.dtype == expected[name].dtype, name
        assert torch.equal(tensor, expected[name]), name


@pytest.fixture
def save(tmp_path) -> Callable:
    def save(content, name='official.pth'):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


class Recorder(logging.Handler):
    """Keeps the records of mmengine's logger, which does not hand them on to the root logger."""

    def __init__(self) -> None:
        super().__init__()
        self.records = []
        self.emit = self.records.append

    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno >= logging.WARNING]


@pytest.fixture
def log() -> Iterator[Recorder]:
    recorder = Recorder()
    logger = MMLogger.get_current_instance()
    logger.addHandler(recorder)
    yield recorder
    logger.removeHandler(recorder)
