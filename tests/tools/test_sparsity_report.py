"""The report of a run, from its config and checkpoint."""

import csv

import pytest
import torch
from mmengine.config import Config

from sw_mm.sparse import SparseTrainingHook
from sw_mm.sparse.masks import find_layers
from sw_mm.sparse.topology import draw_masks


@pytest.fixture(scope='module')
def tool(load_tool):
    return load_tool('analysis_tools.sparsity_report')


@pytest.fixture
def run(tmp_path):
    """A config, a model, and a hook with masks of half the filters."""
    from mmpretrain.registry import MODELS

    import sw_mm.registry  # noqa: F401

    backbone = dict(
        type='sw_mm.ShiftWiseNet', arch=dict(depths=(1, 1, 1, 1), channels=(8, 8, 8, 8)), kernel_size=(13, 9, 7, 5)
    )
    head = dict(type='LinearClsHead', num_classes=2, in_channels=8)
    config = Config(dict(default_scope='mmpretrain', model=dict(type='ImageClassifier', backbone=backbone, head=head)))
    config.dump(tmp_path / 'config.py')
    model = MODELS.build(config.model)
    hook = SparseTrainingHook()
    hook.layers, hook.generator = find_layers(model, 'filter', 'large_kernels'), torch.Generator()
    for layer in hook.layers:
        draw_masks(layer, layer.size // 2, hook.generator)
    return tmp_path, model, hook


def read(folder):
    with (folder / 'report' / 'sparsity.csv').open() as file:
        return {line['weight']: float(line['density']) for line in csv.DictReader(file)}


def test_masks_count_also_where_a_weight_has_only_just_grown(tool, run, capsys):
    folder, model, hook = run
    with torch.no_grad():
        for weight in hook.weights:
            weight.parameter.zero_()
    torch.save(dict(state_dict=model.state_dict(), sparse=hook.state_dict()), folder / 'run.pth')
    tool.main([f'{folder}/config.py', f'{folder}/run.pth', '--out', f'{folder}/report', '--shape', '32', '32'])
    densities = read(folder)
    assert 0.45 < densities['backbone.stages.0.0.large_kernel.LoRAs.1.weight'] <= 0.5
    assert densities['head.fc.weight'] == 1
    assert (folder / 'report' / 'density.png').exists()
    assert (folder / 'report' / 'strips.png').exists()
    assert 'total' in capsys.readouterr().out


def test_without_masks_zeros_count(tool, run):
    folder, model, hook = run
    for weight in hook.weights:
        weight.apply()
    torch.save(dict(state_dict=model.state_dict()), folder / 'run.pth')
    tool.main([f'{folder}/config.py', f'{folder}/run.pth', '--out', f'{folder}/report', '--shape', '32', '32'])
    assert 0.45 < read(folder)['backbone.stages.0.0.large_kernel.LoRAs.1.weight'] <= 0.5


def test_masks_of_another_model(tool, run):
    folder, model, hook = run
    state = hook.state_dict()
    state['sizes'] = {name: size + 1 for name, size in state['sizes'].items()}
    torch.save(dict(state_dict=model.state_dict(), sparse=state), folder / 'run.pth')
    with pytest.raises(SystemExit, match='fits no weight'):
        tool.main([f'{folder}/config.py', f'{folder}/run.pth', '--out', f'{folder}/report'])
