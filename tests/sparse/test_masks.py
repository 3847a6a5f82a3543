"""What is masked, and how masks are stored."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sw_mm.backbones import ShiftWiseNet, SLaK
from sw_mm.layers.shift_wise_conv import ShiftWiseConv2d
from sw_mm.sparse.masks import find_layers, pack_bits, unpack_bits


def small(network: type, **options) -> nn.Module:
    with torch.device('meta'):
        return network(arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)), **options)


@given(st.lists(st.booleans(), max_size=70))
def test_bits_survive(mask):
    mask = torch.tensor(mask, dtype=torch.bool)
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8
    assert len(packed) == -(-len(mask) // 8)
    assert torch.equal(unpack_bits(packed, len(mask)), mask)


def test_filters_of_all_paths_share_a_layer():
    """The official code finds paths by the substring ``0.weight``, which holds for the eleventh path too."""
    layers = find_layers(ShiftWiseConv2d(8, 13, num_paths=11), 'filter', 'large_kernels')
    assert [len(layer.weights) for layer in layers] == [11]
    assert len({weight.name for weight in layers[0].weights}) == 11
    assert layers[0].size == 6 * 5  # channels that are not ghosts, times shifts


def test_large_kernels_of_sw():
    layers = find_layers(small(ShiftWiseNet), 'filter', 'large_kernels')
    assert len(layers) == 4
    assert {weight.name.rpartition('.LoRAs.')[2] for layer in layers for weight in layer.weights} == {
        '0.weight',
        '1.weight',
    }


def test_large_kernels_of_slak_are_the_strips():
    layers = find_layers(small(SLaK, width_factor=1.0), 'weight', 'large_kernels')
    assert len(layers) == 8
    assert all('LoRA' in layer.name for layer in layers)
    assert layers[0].size == 8 * 51 * 5


def test_all_of_slak():
    model = small(SLaK, width_factor=1.0)
    names = {layer.name for layer in find_layers(model, 'weight', 'all')}
    assert names == {name for name, p in model.named_parameters() if p.dim() >= 2}
    assert any('small_conv' in name for name in names)


def test_other_weights_are_masked_number_by_number():
    layers = find_layers(small(ShiftWiseNet), 'filter', 'all')
    kinds = {w.name: w.granularity for layer in layers for w in layer.weights}
    assert all((kind == 'filter') == ('LoRAs' in name) for name, kind in kinds.items())
    assert set(kinds.values()) == {'filter', 'weight'}


def test_expressions_frozen_and_shared_weights():
    model = nn.ModuleDict(dict(a=nn.Linear(3, 3), b=nn.Linear(3, 3), c=nn.Linear(3, 3), n=nn.LayerNorm(3)))
    model['c'].weight = model['a'].weight
    model['b'].weight.requires_grad_(False)
    assert [layer.name for layer in find_layers(model, 'weight', 'all')] == ['a.weight']
    assert [layer.name for layer in find_layers(model, 'weight', [r'[ab]\.weight'])] == ['a.weight']
    with pytest.raises(ValueError, match=r'match no parameter.*named_parameters'):
        find_layers(model, 'weight', [r'a\.weight', 'z'])
    with pytest.raises(ValueError, match='nothing to mask'):
        find_layers(model, 'weight', 'large_kernels')
    with pytest.raises(ValueError, match='nothing to mask'):
        find_layers(model, 'weight', [r'n\.weight'])  # norms and biases are never masked


@pytest.mark.parametrize(
    ('granularity', 'targets', 'match'), [('row', 'all', 'granularity'), ('weight', 'everything', 'targets')]
)
def test_unknown_choice(granularity, targets, match):
    with pytest.raises(ValueError, match=match):
        find_layers(nn.Linear(2, 2), granularity, targets)
