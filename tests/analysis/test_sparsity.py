import csv

import pytest
import torch
from torch import nn

from sw_mm.analysis import complexity, sparsity, strip_masks
from sw_mm.analysis.sparsity import draw_densities, draw_strips, empty_taps, table, total, write_csv
from sw_mm.backbones import ShiftWiseNet, SLaK
from sw_mm.layers import LargeDepthwiseConv2d, ShiftWiseConv2d


@pytest.mark.parametrize('network', [ShiftWiseNet, SLaK])
def test_sums_are_those_of_the_whole(network):
    """Convolutions and linear layers are all there is to count; of the parameters, norms and biases are missing."""
    with torch.device('meta'):
        model = network()
        masks = {name: torch.empty(p.shape, dtype=torch.bool) for name, p in model.named_parameters() if p.dim() > 1}
    whole = complexity(model)
    masks = {name: torch.ones(1, dtype=torch.bool).expand(mask.shape) for name, mask in masks.items()}
    rows = sparsity(model, masks)
    sums = total(rows)
    assert sums.macs == sums.sparse_macs == whole.macs
    # Laying the filters out as strips is a product of matrices, and belongs to no weight.
    tables = [module.tables for module in model.modules() if isinstance(module, ShiftWiseConv2d)]
    layout = sum(t.channels * (2 * t.num_shifts + 1) * t.num_shifts * t.small_kernel**2 for t in tables)
    assert sums.executed_macs + layout == whole.executed_macs
    assert sums.density == 1
    assert sums.params == sum(p.numel() for p in model.parameters() if p.dim() > 1)


def test_a_layer_by_hand():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 5 * 6, 2))
    with torch.no_grad():
        model[0].weight[:, 0] = 0
    mask = torch.arange(2)[:, None] > 0  # one row of two
    first, second = sparsity(model, {'2.weight': mask}, (3, 5, 6))
    assert (first.name, first.shape, first.params, first.kept) == ('0.weight', (4, 3, 3, 3), 108, 72)
    assert (first.macs, first.sparse_macs, first.executed_macs) == (108 * 30, 72 * 30, 108 * 30)
    assert (second.kept, second.macs, second.sparse_macs) == (120, 240, 120)
    assert total([first, second]).density == pytest.approx(192 / 348)


def test_kernels_larger_than_the_map_are_cropped():
    layer = LargeDepthwiseConv2d(4, 13, small_kernel=5, decomposed=True)
    rows = {row.name: row for row in sparsity(layer, input_shape=(4, 4, 4))}
    row = rows['LoRA1.conv.weight']
    assert row.macs == 4 * 13 * 5 * 16
    assert row.executed_macs == 4 * 7 * 5 * 16


def test_paths_are_executed_as_one():
    layer = ShiftWiseConv2d(8, 13, num_paths=2)
    first, second = sparsity(layer, input_shape=(8, 9, 9))
    assert first.executed_macs == layer.macs_executed(9, 9)
    assert second.executed_macs == 0
    assert first.macs + second.macs == layer.published_macs(9, 9)


def test_masks_of_other_weights():
    with pytest.raises(ValueError, match='no weight of the model'):
        sparsity(nn.Conv2d(3, 3, 1), {'other': torch.ones(1, dtype=torch.bool)}, (3, 2, 2))


def test_strips_of_shift_wise_filters_show_what_edges_share():
    """With one edge and one path, a tap is a filter; a second path fills what the first leaves."""
    layer = ShiftWiseConv2d(8, 13, num_paths=2, num_edges=1)
    shape = layer.LoRAs[0].weight.shape
    none = torch.zeros(shape[0], 1, 1, 1, dtype=torch.bool)
    one = none.clone()
    one[3] = True
    strips = strip_masks(layer, {'LoRAs.0.weight': one, 'LoRAs.1.weight': none})
    assert {name: tuple(strip.shape) for name, strip in strips.items()} == {
        ', horizontal': (6, 15),
        ', vertical': (6, 15),
    }
    for strip in strips.values():
        assert strip[0].sum() == 3, 'one filter of three columns'
        assert not strip[1:].any()
    both = strip_masks(layer, {'LoRAs.0.weight': one, 'LoRAs.1.weight': ~one})
    assert all(strip.all() for strip in both.values())


def test_strips_of_weights():
    layer = LargeDepthwiseConv2d(2, 13, small_kernel=5, decomposed=True)
    with torch.no_grad():
        layer.LoRA1.conv.weight[:, :, 0] = 0
        layer.LoRA1.conv.weight[:, :, 1, 0] = 0
    column, row = strip_masks(layer).values()
    assert column.shape == row.shape == (2, 13)
    torch.testing.assert_close(column[0], torch.tensor([0, 0.8, *[1.0] * 11]))
    assert row.all()
    column[0, 5] = 0
    assert empty_taps(dict(column=column, row=row)) == (1, 26, pytest.approx(1.5 / 26))


def test_tables_and_pictures(tmp_path):
    model = nn.Sequential(ShiftWiseConv2d(8, 13), nn.Conv2d(8, 2, 1))
    rows = sparsity(model, input_shape=(8, 9, 9))
    write_csv(rows, tmp_path / 'table.csv')
    with (tmp_path / 'table.csv').open() as file:
        read = list(csv.DictReader(file))
    assert [line['weight'] for line in read] == ['0.LoRAs.0.weight', '0.LoRAs.1.weight', '1.weight', 'total']
    assert int(read[-1]['macs']) == sum(row.macs for row in rows)
    assert len(table(rows).splitlines()) == 5
    draw_densities(rows, tmp_path / 'density.png')
    draw_strips(strip_masks(model), tmp_path / 'strips.png')
    assert all((tmp_path / name).stat().st_size > 5000 for name in ('density.png', 'strips.png'))
    with pytest.raises(ValueError, match='no large kernel'):
        draw_strips({}, tmp_path / 'nothing.png')
