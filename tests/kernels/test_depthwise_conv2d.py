"""The depthwise convolution: public function, and the CPU operators beneath it, against the plain form."""

import pytest
import torch
from torch.nn import functional as F

from sw_mm.kernels import depthwise_conv2d, depthwise_macs
from sw_mm.kernels.depthwise_conv2d import reference

conv = torch.ops.sw_mm.depthwise_conv2d
weight_grad = torch.ops.sw_mm.depthwise_conv2d_weight_grad

# Kernel size and padding (left, right, top, bottom): odd and even, larger than the map, one-sided, beyond the kernel.
CASES = [
    ((3, 3), (1, 1, 1, 1)),
    ((3, 13), (6, 6, 1, 1)),
    ((13, 3), (1, 1, 4, 8)),
    ((3, 17), (8, 8, 1, 1)),
    ((3, 15), (6, 8, 1, 1)),
    ((4, 4), (1, 2, 2, 1)),
    ((2, 9), (0, 8, 0, 1)),
    ((3, 3), (4, 5, 6, 4)),
    ((1, 1), (0, 0, 0, 0)),
    ((31, 31), (15, 15, 15, 15)),
    ((3, 51), (25, 25, 1, 1)),
]


def random_inputs(size, kernel_size, dtype, channels=3, batch=2, channels_last=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, *kernel_size, generator=generator, dtype=dtype)
    bias = torch.randn(channels, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]


def with_gradients(function, inputs):
    out = function(*inputs)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, cotangent)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('size', [(7, 6), (24, 25), (1, 9)])
@pytest.mark.parametrize(('kernel_size', 'padding'), CASES)
def test_equals_the_plain_form(kernel_size, padding, size, channels_last, dtype):
    if size[0] + sum(padding[2:]) < kernel_size[0] or size[1] + sum(padding[:2]) < kernel_size[1]:
        padding = padding[:2] + (kernel_size[0],) * 2
    inputs = random_inputs(size, kernel_size, dtype, channels_last=channels_last)
    actual = with_gradients(lambda *t: depthwise_conv2d(*t, padding=padding), inputs)
    double = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = with_gradients(lambda *t: reference.depthwise_conv2d(*t, padding), double)
    for value, wanted in zip(actual, expected, strict=True):
        assert value.dtype == dtype
        assert (value - wanted).norm() <= (1e-5 if dtype is torch.float32 else 1e-13) * wanted.norm()


@pytest.mark.parametrize(('kernel_size', 'padding'), [((3, 17), (1, 8)), ((17, 3), (8, 1)), ((3, 3), (1, 1))])
@pytest.mark.parametrize('size', [(5, 20), (28, 30)])
def test_every_route_of_the_weight_gradient(kernel_size, padding, size):
    """Native, contiguous, whole batch in channels_last, and image by image; called as the operator, so in fp64 too."""
    x, _, _ = random_inputs(size, kernel_size, torch.float64)
    grad = torch.randn(2, 3, *(s + 2 * p - k + 1 for s, p, k in zip(size, padding, kernel_size, strict=True))).double()
    expected = torch.nn.grad.conv2d_weight(x, (3, 1, *kernel_size), grad, padding=padding, groups=3)
    torch.testing.assert_close(weight_grad(x, grad, padding), expected)


@pytest.mark.parametrize('padding', [(1, 3), (4, 0)])
def test_operators_differentiate_twice(padding):
    inputs = random_inputs((4, 7), (3, 5), torch.float64, channels=2, batch=1)
    assert torch.autograd.gradcheck(conv, (*inputs, padding))
    assert torch.autograd.gradgradcheck(conv, (*inputs, padding))


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('shape', [(2, 3, 6, 5), (2, 1, 6, 5), (0, 3, 4, 4), (1, 2, 1, 1)])
def test_operators_keep_their_contract(shape, channels_last):
    x, weight, _ = random_inputs(shape[2:], (3, 7), torch.float32, shape[1], shape[0], channels_last)
    torch.library.opcheck(conv, (x, weight, None, (1, 3)))
    torch.library.opcheck(weight_grad, (x, torch.randn(shape).requires_grad_(), (1, 3)))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_memory_format_is_kept(dtype):
    x, weight, _ = random_inputs((9, 8), (3, 13), dtype, channels=6)
    assert depthwise_conv2d(x, weight, padding=(1, 6)).is_contiguous()
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    for part, kernels in ((channels_last, weight), (channels_last[:, 1:4], weight[1:4])):
        assert depthwise_conv2d(part, kernels, padding=(1, 6)).is_contiguous(memory_format=torch.channels_last)


def test_padding_can_be_said_in_three_ways():
    x, weight, bias = random_inputs((6, 9), (3, 5), torch.float64)
    expected = F.conv2d(x, weight, bias, padding=(1, 2), groups=3)
    torch.testing.assert_close(depthwise_conv2d(x, weight, bias, (1, 2)), expected)
    torch.testing.assert_close(depthwise_conv2d(x, weight, bias, (2, 2, 1, 1)), expected)
    torch.testing.assert_close(depthwise_conv2d(x, weight, padding=2), F.conv2d(x, weight, padding=2, groups=3))


def test_autocast_casts_and_gives_gradients_in_the_input_dtype():
    inputs = random_inputs((9, 8), (3, 13), torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = depthwise_conv2d(*inputs, padding=(1, 6))
    assert out.dtype == torch.bfloat16
    gradients = torch.autograd.grad(out.float().square().sum(), inputs)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_compiled_without_a_break():
    inputs = random_inputs((9, 8), (3, 13), torch.float32)
    compiled = torch.compile(lambda *t: depthwise_conv2d(*t, padding=(1, 6)), fullgraph=True, backend='aot_eager')
    eager = with_gradients(lambda *t: depthwise_conv2d(*t, padding=(1, 6)), inputs)
    torch.testing.assert_close(with_gradients(compiled, inputs), eager)


@pytest.mark.parametrize('padding', [(1, 6), (6, 8, 1, 1)])
def test_exported_as_a_plain_convolution(padding):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 1, 3, 13 if len(padding) == 2 else 15))

        def forward(self, x):
            return depthwise_conv2d(x, self.weight, padding=padding)

    x = torch.randn(1, 3, 20, 20)
    exported = torch.export.export(Layer(), (x,))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == 'call_function'}
    assert 'aten.conv2d.default' in targets
    assert not any('sw_mm' in target for target in targets)


def test_macs_count_the_cropped_kernel():
    assert depthwise_macs((3, 3), (1, 1, 1, 1), 8, 5) == 9 * 40
    assert depthwise_macs((3, 51), (25, 25, 1, 1), 14, 14) == 3 * 27 * 14 * 14
    assert depthwise_macs((15, 3), (1, 1, 6, 8), 7, 7) == 13 * 3 * 49
    assert depthwise_macs((4, 4), (0, 0, 0, 0), 6, 5) == 16 * 3 * 2


@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('x', {'x': torch.zeros(3, 6, 6)}),
        ('weight', {'weight': torch.zeros(4, 1, 3, 3)}),
        ('weight', {'weight': torch.zeros(3, 2, 3, 3)}),
        ('weight', {'weight': torch.zeros(3, 1, 3, 3).double()}),
        ('bias', {'bias': torch.zeros(4)}),
        ('padding', {'padding': (1, 1, 1)}),
        ('padding', {'padding': -1}),
        ('padding', {'weight': torch.zeros(3, 1, 9, 9), 'padding': 1}),
    ],
)
def test_bad_arguments_are_named(name, change):
    arguments = {'x': torch.zeros(2, 3, 6, 6), 'weight': torch.zeros(3, 1, 3, 3), 'bias': None, 'padding': 1} | change
    with pytest.raises(ValueError, match=f'^{name} '):
        depthwise_conv2d(**arguments)
