import copy

import pytest
import torch
from torch import nn

from sw_mm.analysis import Complexity, complexity
from sw_mm.backbones import ShiftWiseNet
from sw_mm.layers import ShiftWiseConv2d


class Classifier(nn.Module):
    """The official net: a backbone and a linear layer for 1000 classes."""

    def __init__(self, *args, **kwargs) -> None:
        super().__init__()
        self.backbone = ShiftWiseNet(*args, **kwargs)
        self.head = nn.Linear(self.backbone.norm.normalized_shape[0], 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x)[0])


# Millions of parameters and billions of MACs at 224 x 224, with one path (as papers print them) and with two.
PUBLISHED = [
    ('tiny', '31.003', '5.024', '31.790', '5.336'),
    ('small', '55.990', '9.334', '57.313', None),
    ('base', '98.477', '16.383', '100.250', None),
    ('large', '219.153', '36.368', '221.809', None),
    ('v1-tiny', '28.854', '4.631', '29.419', '4.911'),
    ('v1-small', '50.942', '8.989', '52.275', None),
    ('v1-base', '89.551', '15.763', '91.330', None),
]


@pytest.mark.parametrize(('arch', 'params', 'macs', 'params2', 'macs2'), PUBLISHED)
def test_official_nets_cost_what_is_published(arch, params, macs, params2, macs2):
    with torch.device('meta'):
        merged, paths = Classifier(arch, num_paths=1), Classifier(arch)
    cost = complexity(merged)
    assert (f'{cost.params / 1e6:.3f}', f'{cost.macs / 1e9:.3f}') == (params, macs)
    assert f'{sum(p.numel() for p in paths.parameters()) / 1e6:.3f}' == params2
    if macs2:
        cost2 = complexity(paths)
        assert f'{cost2.macs / 1e9:.3f}' == macs2
        assert cost2.executed_macs == cost.executed_macs, 'paths are summed before the convolution'


def test_folding_saves_work():
    with torch.device('meta'):
        trained, deployed = (Classifier(deploy=deploy) for deploy in (False, True))
    before, after = complexity(trained), complexity(deployed)
    assert before.params == 31_790_260
    assert after.executed_macs < before.executed_macs


def test_executed_macs_are_those_of_the_cropped_strips():
    with torch.device('meta'):
        layer = ShiftWiseConv2d(8, 13, deploy=True)
    rep, taps = 6, 15
    # On a map of 5 x 5 only 9 of the 15 taps of a strip can touch data.
    assert complexity(layer, (8, 5, 5)).executed_macs == 2 * rep * 3 * 9 * 5 * 5
    assert complexity(layer, (8, 40, 40)).executed_macs == 2 * rep * 3 * taps * 40 * 40
    # As published: five filters of 3 x 3 for each channel, over a map that is 2 larger.
    assert complexity(layer, (8, 5, 5)).macs == rep * 5 * 9 * 7 * 7


def test_any_module_can_be_counted():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, groups=4), nn.Linear(6, 5)
    )
    assert complexity(net, (3, 16, 16)) == Complexity(
        params=3 * 8 * 9 + 8 + 16 + 2 * 8 * 9 + 8 + 35,
        macs=8 * 8 * 8 * 27 + 6 * 6 * 8 * 18 + 8 * 6 * 6 * 5,
        executed_macs=8 * 8 * 8 * 27 + 6 * 6 * 8 * 18 + 8 * 6 * 6 * 5,
    )


def test_the_model_stays_as_it_is():
    net = ShiftWiseNet(dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)), kernel_size=5).train()
    before = copy.deepcopy(net.state_dict())
    complexity(net, (3, 32, 32))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_result_is_readable():
    assert (
        str(Complexity(31_003_000, 5_024_000_000, 5_159_000_000)) == '31.003 M parameters, 5.024 GMACs (5.159 executed)'
    )


@pytest.mark.parametrize('shape', [(224, 224), (1, 3, 224, 224), (3, 0, 224), (3, '224', 224), 224])
def test_bad_input_shape_is_refused(shape):
    with pytest.raises(ValueError, match='input_shape'):
        complexity(nn.ReLU(), shape)
