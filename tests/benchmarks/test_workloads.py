"""The layers that are measured: those that the models have, with the work that they do."""

from collections import Counter
from math import prod

import pytest
import torch
from torch.nn import functional as F

from benchmarks import workloads
from benchmarks.workloads import Depthwise, Shift, same
from sw_mm.backbones import ShiftWiseNet
from sw_mm.layers import ShiftWiseConv2d

LAYERS = [
    same(2, 6, 3),
    same(1, 5, 4),
    same(3, 7, (51, 5)),
    same(2, 9, 3, dilation=4),
    Depthwise(2, (6, 9), (3, 5), (4, 0, 1, 7)),
    Depthwise(1, (8, 8), (3, 3), (0, 0, 0, 0), dilation=2),
    same(2, 8, 3, stride=2),
    Depthwise(1, (7, 10), (3, 2), (1, 0, 2, 1), dilation=2, stride=3),
]


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_useful_work_is_what_meets_data(layer):
    """Where map and kernel are all ones, a result counts the taps that it is made of."""
    ones = torch.ones(2, layer.channels, *layer.size)
    kernel = torch.ones(layer.channels, 1, *layer.kernel_size)
    out = F.conv2d(F.pad(ones, layer.padding), kernel, None, layer.stride, 0, layer.dilation, layer.channels)
    assert out.shape[2:] == layer.out_size
    assert layer.useful_macs(batch=2) == int(out.sum())
    assert layer.min_bytes(2, itemsize=4) == ones.nbytes + out.nbytes


def test_even_kernels_keep_the_size():
    assert same(1, 5, (4, 2)).out_size == (5, 5)


def test_shift_layers_work_in_their_strips():
    layer = Shift(4, (6, 6), kernel_size=5, small_kernel=3, num_edges=4)
    horizontal, vertical, centred = layer.branches(deploy=False)
    assert (horizontal.kernel_size, vertical.kernel_size, centred.kernel_size) == ((3, 6), (6, 3), (3, 3))
    assert all(branch.out_size == (6, 6) for branch in (horizontal, vertical, centred))
    assert layer.useful_macs(2) - layer.useful_macs(2, deploy=True) == centred.useful_macs(2)
    one_map = 2 * 4 * 6 * 6 * 4
    assert (layer.min_bytes(2, 4), layer.min_bytes(2, 4, deploy=True)) == (4 * one_map, 2 * one_map)


def test_shift_layers_are_those_a_net_runs():
    with torch.device('meta'):
        net, image = ShiftWiseNet('tiny'), torch.empty(1, 3, workloads.IMAGE, workloads.IMAGE)
    seen = Counter()

    def record(module, inputs):
        tables = module.tables
        size = tuple(inputs[0].shape[2:])
        seen[Shift(tables.channels, size, tables.kernel_size, tables.small_kernel, tables.num_edges)] += 1

    for module in net.modules():
        if isinstance(module, ShiftWiseConv2d):
            module.register_forward_pre_hook(record)
    net(image)
    assert workloads.MODELS['SW-T']() == seen


def nominal_gmacs(model, wanted):
    """Multiply-accumulates as the papers count them, taps on padding included."""
    layers = workloads.MODELS[model]().items()
    return sum(n * x.channels * prod(x.kernel_size) * prod(x.out_size) for x, n in layers if wanted(x)) / 1e9


def test_layers_of_other_models_add_up():
    """Against the published counts: of single parts (SLaK), or training form less deploy form (the others)."""
    assert nominal_gmacs('SLaK-T', lambda layer: max(layer.kernel_size) > 5) == pytest.approx(1.315, abs=5e-4)
    assert nominal_gmacs('SLaK-T', lambda layer: layer.kernel_size == (5, 5)) == pytest.approx(0.069, abs=5e-4)
    assert nominal_gmacs('RepLKNet-31B', lambda layer: layer.kernel_size == (5, 5)) == pytest.approx(
        15.431 - 15.354, abs=1e-3
    )
    branches = (5, 1), (7, 2), (3, 3), (3, 4), (3, 5)
    assert nominal_gmacs(
        'UniRepLKNet-T', lambda layer: (layer.kernel_size[0], layer.dilation) in branches
    ) == pytest.approx(5.004 - 4.899, abs=1e-3)
    assert sum(workloads.MODELS['RepLKNet-31B']().values()) == 2 * 24 + 5
    # The published total of the deploy form, less its dense convolutions: stem, blocks, transitions and head.
    maps = (128, 56, 2), (256, 28, 2), (512, 14, 18), (1024, 7, 2)
    dense = (9 * 3 * 128 + 128 * 128) * 112**2 + sum(10 * (c * size) ** 2 * depth for c, size, depth in maps)
    dense += sum(2 * (c * size) ** 2 for c, size, _ in maps[:3]) + 1024 * 1000
    assert nominal_gmacs('RepLKNet-31B', lambda layer: layer.kernel_size != (5, 5)) == pytest.approx(
        15.354 - dense / 1e9, abs=1e-3
    )


def test_growth_series_change_one_quantity():
    for quantity, points in workloads.growth().items():
        for value, layer, batch in points:
            of_layer = {'K': layer.kernel_size, 'H': layer.size, 'C': (layer.channels,), 'N': (batch,)}
            assert set(of_layer.pop(quantity)) == {value}
            typical = {'K': (13, 13), 'H': (28, 28), 'C': (128,), 'N': (8,)}
            assert of_layer == {key: typical[key] for key in of_layer}
