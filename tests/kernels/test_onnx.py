"""Both of PyTorch's exporters write the operators as plain convolutions, which onnxruntime computes to the same end."""

import logging
import warnings

import pytest
import torch
from torch import nn

from sw_mm.backbones import ShiftWiseNet
from sw_mm.kernels import depthwise_conv2d

_REASON = 'install onnx, onnxruntime and onnxscript (the extra `dev`) to test exports'
onnx = pytest.importorskip('onnx', reason=_REASON)
onnxruntime = pytest.importorskip('onnxruntime', reason=_REASON)
pytest.importorskip('onnxscript', reason=_REASON)


@pytest.fixture(autouse=True)
def _quiet():
    """Of constants that are not folded, sizes that become constants, and the older exporter's age."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        logging.disable(logging.WARNING)
        yield
        logging.disable(logging.NOTSET)


def export(model, x, path, dynamo, dynamic):
    """Export with the given axes dynamic; return the graph's nodes and what computes it."""
    if dynamo:
        shapes = (dict.fromkeys(dynamic, torch.export.Dim.DYNAMIC),)
        torch.onnx.export(model, (x,), path, dynamo=True, dynamic_shapes=shapes, verbose=False)
    else:
        axes = {axis: f'side_{axis}' for axis in dynamic}
        torch.onnx.export(model, (x,), path, dynamo=False, input_names=['x'], dynamic_axes={'x': axes})
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    name = session.get_inputs()[0].name
    return onnx.load(path).graph, lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0])


class Layer(nn.Module):
    def __init__(self, kernel_size, **geometry):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(4, 1, *kernel_size, generator=generator))
        self.bias = nn.Parameter(torch.randn(4, generator=generator))
        self.geometry = geometry

    def forward(self, x):
        return depthwise_conv2d(x, self.weight, self.bias, **self.geometry)


CASES = {
    'asymmetric': ((3, 9), dict(padding=(3, 5, 1, 1))),
    'stride': ((5, 5), dict(padding=2, stride=2)),
    'dilation': ((5, 5), dict(padding=(4, 4), dilation=2)),
    'larger than the map': ((31, 31), dict(padding=15)),
    'all at once': ((3, 9), dict(padding=(5, 3, 2, 3), stride=2, dilation=(1, 2))),
}


@pytest.mark.parametrize('dynamo', [True, False])
@pytest.mark.parametrize('dynamic', [(0,), (0, 2, 3)])
@pytest.mark.parametrize('case', CASES)
def test_depthwise_convolutions(case, dynamic, dynamo, tmp_path):
    kernel_size, geometry = CASES[case]
    layer, x = Layer(kernel_size, **geometry), torch.randn(2, 4, 12, 13)
    graph, compute = export(layer, x, tmp_path / 'layer.onnx', dynamo, dynamic)
    assert {node.domain for node in graph.node} == {''}
    assert sum(node.op_type == 'Conv' for node in graph.node) == 1
    if dynamo:
        assert len(graph.node) == 1
    x = torch.randn(3, 4, *((17, 14) if 2 in dynamic else (12, 13)))
    with torch.no_grad():
        torch.testing.assert_close(compute(x), layer(x), rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize(('dynamo', 'dynamic'), [(True, (0,)), (True, (0, 2, 3)), (False, (0,)), (False, (0, 2, 3))])
def test_a_model_in_deploy_form(dynamo, dynamic, tmp_path):
    arch = dict(depths=(1, 1, 1, 1), channels=(8, 16, 24, 32))
    model = ShiftWiseNet(arch, kernel_size=(51, 49, 47, 13), layer_scale_init_value=1.0).eval()
    model.switch_to_deploy()
    graph, compute = export(model, torch.randn(2, 3, 96, 96), tmp_path / 'model.onnx', dynamo, dynamic)
    assert {node.domain for node in graph.node} == {''}
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    strips = [shapes[node.input[1]] for node in graph.node if node.op_type == 'Conv']
    strips = [shape for shape in strips if shape[1] == 1 and shape[2] != shape[3]]
    assert len(strips) == 8
    # The first map is 24 x 24: no more than 47 taps touch it, but only a fixed size tells the exporter.
    cropped = dynamo and dynamic == (0,)
    assert strips[0][2:] == (3, 47 if cropped else 51)
    x = torch.randn(3, 3, *((64, 128) if 2 in dynamic else (96, 96)))
    with torch.no_grad():
        torch.testing.assert_close(compute(x), model(x)[0], rtol=1e-5, atol=1e-5)
