"""Other ways to convolve depthwise on a CPU, for comparison; each maps input and weight of a layer to its result."""

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from .harness import Operator
from .workloads import Depthwise


def native(layer: Depthwise) -> Operator:
    """PyTorch's own convolution; padding that differs between opposite sides costs a copy."""
    left, right, top, bottom = layer.padding
    symmetric = left == right and top == bottom

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        if not symmetric:
            x = F.pad(x, layer.padding)
        padding = (top, left) if symmetric else 0
        return F.conv2d(x, weight, stride=layer.stride, padding=padding, dilation=layer.dilation, groups=layer.channels)

    return convolve


def fft(layer: Depthwise) -> Operator:
    """Product of the spectra, on maps padded to a size that transforms quickly."""
    left, _, top, _ = layer.padding
    kh, kw = (layer.dilation * (taps - 1) + 1 for taps in layer.kernel_size)
    height, width = layer.out_size
    size = [_fast_length(extent + taps - 1) for extent, taps in zip(layer.size, (kh, kw), strict=True)]

    def convolve(x: Tensor, weight: Tensor) -> Tensor:
        if layer.dilation > 1:
            sparse = weight.new_zeros(layer.channels, 1, kh, kw)
            sparse[..., :: layer.dilation, :: layer.dilation] = weight
            weight = sparse
        # A convolution in the sense of mathematics runs through the kernel backwards.
        spectrum = torch.fft.rfft2(x, s=size) * torch.fft.rfft2(weight.flip(2, 3)[:, 0], s=size)
        full = torch.fft.irfft2(spectrum, s=size)
        rows, columns = kh - 1 - top, kw - 1 - left
        stride = layer.stride
        return full[..., rows : rows + height * stride : stride, columns : columns + width * stride : stride]

    return convolve


def engines(layer: Depthwise, weight: Tensor) -> dict[str, Callable[[Tensor], Tensor]]:
    """Inference engines for the CPU that are installed, the weight built in; they take contiguous fp32 maps."""
    made = {}
    if weight.device.type != 'cpu':
        return made
    if find_spec('onnx') and find_spec('onnxruntime'):
        made['onnxruntime'] = _onnxruntime(layer, weight)
    if find_spec('openvino'):
        made['openvino'] = _openvino(layer, weight)
    return made


def _onnxruntime(layer: Depthwise, weight: Tensor) -> Callable[[Tensor], Tensor]:
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    left, right, top, bottom = layer.padding
    node = helper.make_node(
        'Conv',
        ['x', 'weight'],
        ['y'],
        group=layer.channels,
        pads=[top, left, bottom, right],
        dilations=[layer.dilation] * 2,
        strides=[layer.stride] * 2,
    )
    shapes = {'x': ['n', layer.channels, *layer.size], 'y': ['n', layer.channels, *layer.out_size]}
    graph = helper.make_graph(
        [node],
        'depthwise',
        *([helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name])] for name in ('x', 'y')),
        [numpy_helper.from_array(weight.numpy(), 'weight')],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=['CPUExecutionProvider'])
    return lambda x: torch.from_numpy(session.run(None, {'x': x.numpy()})[0])


def _openvino(layer: Depthwise, weight: Tensor) -> Callable[[Tensor], Tensor]:
    import openvino
    from openvino import opset13

    left, right, top, bottom = layer.padding
    x = opset13.parameter([-1, layer.channels, *layer.size], dtype=openvino.Type.f32)
    kernels = opset13.constant(weight[:, None].numpy())
    y = opset13.group_convolution(x, kernels, [layer.stride] * 2, [top, left], [bottom, right], [layer.dilation] * 2)
    hints = {'INFERENCE_NUM_THREADS': torch.get_num_threads(), 'INFERENCE_PRECISION_HINT': 'f32'}
    compiled = openvino.compile_model(openvino.Model([y], [x], 'depthwise'), 'CPU', hints)
    return lambda image: torch.from_numpy(compiled([image.numpy()])[0])


def _fast_length(length: int) -> int:
    """Smallest length from the given one on with no prime factor above 5."""
    while True:
        rest = length
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 1
