"""The depthwise convolution: public function, operators, and the CPU backends' many routes, against the plain form."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from sw_mm.kernels import depthwise_conv2d, depthwise_macs, use_backend
from sw_mm.kernels._plans import Plans
from sw_mm.kernels.depthwise_conv2d import aten, op, reference

forward = torch.ops.sw_mm.depthwise_conv2d
input_grad = torch.ops.sw_mm.depthwise_conv2d_input_grad
weight_grad = torch.ops.sw_mm.depthwise_conv2d_weight_grad

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-5, torch.float16: 3e-3, torch.bfloat16: 2e-2}
# Size of the map, kernel, stride, padding (left, right, top, bottom), dilation. What is special about each:
CASES = {
    'small': ((7, 6), (3, 3), 1, (1, 1, 1, 1), 1),
    'left padding without im2col': ((24, 25), (3, 13), 1, (6, 6, 1, 1), 1),
    'left padding with im2col': ((24, 25), (3, 17), 1, (8, 8, 1, 1), 1),
    'slow width on channels_last': ((14, 15), (13, 13), 1, (6, 6, 6, 6), 1),
    'even': ((9, 8), (4, 4), 1, (1, 2, 2, 1), 1),
    'uneven strip, cropped': ((1, 9), (13, 3), 1, (1, 1, 4, 8), 1),
    'uneven strip, whole': ((9, 30), (3, 15), 1, (6, 8, 1, 1), 1),
    'one-sided': ((5, 12), (2, 9), 1, (0, 8, 0, 1), 1),
    'padding beyond the kernel': ((7, 6), (3, 3), 1, (4, 5, 6, 4), 1),
    'point': ((4, 5), (1, 1), 1, (0, 0, 0, 0), 1),
    'larger than the map': ((7, 6), (31, 31), 1, (15, 15, 15, 15), 1),
    'Fourier': ((40, 41), (31, 33), 1, (20, 12, 15, 15), 1),
    'few wide channels': ((9, 22), (3, 21), 1, (10, 10, 1, 1), 1),
    'wide, uneven': ((9, 30), (5, 17), 1, (9, 7, 1, 3), 1),
    'wide, stride': ((9, 30), (5, 17), (1, 2), (9, 7, 1, 3), 1),
    'narrow': ((24, 25), (9, 3), 1, (1, 1, 3, 5), 1),
    'stride': ((14, 15), (13, 13), 2, (6, 6, 6, 6), 1),
    'stride, native weight gradient': ((8, 9), (3, 3), 2, (1, 1, 1, 1), 1),
    'stride, uneven': ((14, 15), (5, 4), (2, 3), (1, 2, 3, 1), 1),
    'dilation': ((20, 21), (5, 5), 1, (4, 4, 4, 4), 2),
    'dilation, wide padding': ((20, 21), (3, 3), 1, (10, 10, 10, 10), 10),
    'dilation, uneven': ((9, 12), (4, 3), 1, (3, 4, 2, 5), (2, 3)),
    'all at once': ((11, 13), (4, 5), (2, 3), (3, 0, 2, 4), (3, 2)),
}


def random_inputs(size, kernel_size, dtype, channels=3, batch=2, channels_last=False):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    weight = torch.randn(channels, 1, *kernel_size, generator=generator, dtype=torch.float64).to(dtype)
    bias = torch.randn(channels, generator=generator, dtype=torch.float64).to(dtype)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]


def pairs(stride, padding, dilation):
    return *((n, n) if isinstance(n, int) else n for n in (stride, dilation)), padding


def with_gradients(function, inputs):
    out = function(*inputs)
    cotangent = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(out.dtype)
    return out, *torch.autograd.grad(out, inputs, cotangent)


def assert_equals_the_plain_form(inputs, stride, padding, dilation):
    actual = with_gradients(lambda *t: depthwise_conv2d(*t, stride, padding, dilation), inputs)
    double = [tensor.detach().double().requires_grad_() for tensor in inputs]
    expected = with_gradients(lambda *t: reference.depthwise_conv2d(*t, stride, padding, dilation), double)
    for value, wanted in zip(actual, expected, strict=True):
        assert value.dtype == inputs[0].dtype
        assert (value - wanted).norm() <= TOLERANCE[value.dtype] * wanted.norm()


@pytest.mark.parametrize('backend', ['aten', 'native', 'reference'])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', CASES)
def test_equals_the_plain_form(case, channels_last, backend):
    size, kernel_size, *geometry = CASES[case]
    with use_backend(backend):
        assert_equals_the_plain_form(
            random_inputs(size, kernel_size, torch.float32, channels_last=channels_last), *geometry
        )


@pytest.mark.parametrize('has_fp16', [False, aten.HAS_FP16])
@pytest.mark.parametrize('channels', [3, 24])
@pytest.mark.parametrize('channels_last', [False, True])
def test_fp16_with_and_without_onednn(channels_last, channels, has_fp16, cpu_backend, plan_anew, monkeypatch):
    """A processor without arithmetic in fp16 has no kernels of oneDNN for it."""
    monkeypatch.setattr(aten, 'HAS_FP16', has_fp16)
    for size, kernel_size, geometry in (
        ((9, 20), (3, 3), (1, (1, 1, 1, 1), 1)),
        ((9, 20), (3, 17), (1, (8, 8, 1, 1), 1)),
        ((9, 20), (5, 5), (2, (2, 1, 0, 3), 1)),
        ((40, 40), (5, 5), (1, (2, 2, 2, 2), 1)),
    ):
        inputs = random_inputs(size, kernel_size, torch.float16, channels=channels, channels_last=channels_last)
        assert_equals_the_plain_form(inputs, *geometry)
        with torch.no_grad():
            actual = depthwise_conv2d(*inputs, *geometry)
        with use_backend('reference'):
            expected = depthwise_conv2d(*(tensor.double() for tensor in inputs), *geometry)
        assert (actual - expected).norm() <= 1e-3 * expected.norm()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize('case', ['small', 'few wide channels', 'Fourier', 'stride', 'dilation'])
def test_other_dtypes(case, dtype, cpu_backend):
    """oneDNN has no fp16 on most CPUs, and does not return from wide kernels in bf16 with few channels."""
    if (cpu_backend, dtype) == ('native', torch.float64):
        pytest.skip('its sums are fp32')
    size, kernel_size, *geometry = CASES[case]
    assert_equals_the_plain_form(random_inputs(size, kernel_size, dtype), *geometry)


def test_cases_reach_the_fourier_transform(monkeypatch):
    size, kernel_size, *geometry = CASES['Fourier']
    monkeypatch.setattr(aten, '_direct_forward', None)
    monkeypatch.setattr(aten, '_slide', None)
    with use_backend('aten'):
        assert_equals_the_plain_form(random_inputs(size, kernel_size, torch.float32), *geometry)


def test_large_batches_are_taken_in_chunks(monkeypatch):
    monkeypatch.setattr(aten, '_MAX_CHUNK', 1000)
    with use_backend('aten'):
        assert_equals_the_plain_form(random_inputs((12, 13), (5, 7), torch.float32, batch=5), 1, (3, 3, 2, 2), 1)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_geometry(data):
    def draw(first, last):
        return data.draw(st.tuples(st.integers(first, last), st.integers(first, last)))

    size, kernel_size, stride, dilation = draw(1, 16), draw(1, 17), draw(1, 3), draw(1, 4)
    reach = [dilation[i] * (kernel_size[i] - 1) + 1 for i in (0, 1)]
    top, left = (data.draw(st.integers(0, 20)) for _ in range(2))
    bottom, right = (max(reach[i] - size[i] - (top, left)[i], 0) + data.draw(st.integers(0, 9)) for i in (0, 1))
    inputs = random_inputs(size, kernel_size, torch.float32, channels_last=data.draw(st.booleans()))
    with use_backend(data.draw(st.sampled_from(['aten', 'auto']))):
        assert_equals_the_plain_form(inputs, stride, (left, right, top, bottom), dilation)


GEOMETRY = [((1, 1), (3, 1, 1, 2), (1, 1)), ((2, 1), (0, 2, 4, 1), (1, 2))]


@pytest.mark.parametrize('geometry', GEOMETRY)
def test_operators_differentiate_twice(geometry):
    x, weight, bias = random_inputs((4, 7), (3, 4), torch.float64, channels=2, batch=1)
    grad = torch.randn_like(reference.depthwise_conv2d(x, weight, bias, *geometry)).requires_grad_()
    for operator, arguments in (
        (forward, (x, weight, bias)),
        (input_grad, (grad, weight, (4, 7))),
        (weight_grad, (x, grad, (3, 4))),
    ):
        assert torch.autograd.gradcheck(operator, (*arguments, *geometry, 'aten'))
        assert torch.autograd.gradgradcheck(operator, (*arguments, *geometry, 'aten'))


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('shape', [(2, 3, 6, 5), (2, 1, 6, 5), (0, 3, 4, 4), (1, 2, 1, 1)])
def test_operators_keep_their_contract(shape, channels_last, cpu_backend):
    x, weight, bias = random_inputs(shape[2:], (3, 7), torch.float32, shape[1], shape[0], channels_last)
    geometry = (2, 1), (3, 3, 1, 1), (1, 1), cpu_backend
    grad = forward(x, weight, bias, *geometry).detach().requires_grad_()
    torch.library.opcheck(forward, (x, weight, bias, *geometry))
    torch.library.opcheck(input_grad, (grad, weight, shape[2:], *geometry))
    torch.library.opcheck(weight_grad, (x, grad, (3, 7), *geometry))


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(('kernel_size', 'padding'), [((3, 13), (1, 6)), ((3, 17), (1, 8)), ((25, 25), 12)])
def test_memory_format_is_kept(kernel_size, padding, dtype, cpu_backend):
    x, weight, _ = random_inputs((20, 24), kernel_size, dtype, channels=6)
    assert depthwise_conv2d(x, weight, padding=padding).is_contiguous()
    channels_last = x.detach().contiguous(memory_format=torch.channels_last)
    for part, kernels in ((channels_last, weight), (channels_last[:, 1:4], weight[1:4])):
        assert depthwise_conv2d(part, kernels, padding=padding).is_contiguous(memory_format=torch.channels_last)


def test_batched_gradients(cpu_backend):
    """PyTorch computes them with tensors that hold no memory, after a call that was planned without."""
    x, weight, bias = random_inputs((4, 5), (3, 3), torch.float32, channels=1, batch=1)
    out = depthwise_conv2d(x, weight, bias, padding=1)
    directions = torch.eye(out.numel()).view(-1, *out.shape)
    actual = torch.autograd.grad(out, (x, weight, bias), directions, is_grads_batched=True)
    plain = F.conv2d(x, weight, bias, padding=1)
    expected = torch.autograd.grad(plain, (x, weight, bias), directions, is_grads_batched=True)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize('padding', [1, (2, 0, 1, 1)])
def test_a_traced_program_may_leave_sizes_open(padding):
    x, weight = torch.randn(2, 3, 8, 9), torch.randn(3, 1, 3, 3)

    def call(x):
        return depthwise_conv2d(x, weight, padding=padding)

    traced = make_fx(call, tracing_mode='symbolic', _allow_non_fake_inputs=True)(x)
    wider = torch.randn(1, 3, 11, 20)
    torch.testing.assert_close(traced(wider), call(wider))


@pytest.mark.parametrize('kernel_size', [(3, 3), (3, 13)])
def test_gradients_of_gradients_in_fp32(kernel_size, cpu_backend):
    results = []
    for dtype in (torch.float32, torch.float64):
        inputs = random_inputs((9, 26), kernel_size, dtype)
        with use_backend(cpu_backend if dtype is torch.float32 else 'reference'):
            out = depthwise_conv2d(*inputs, padding=(1, kernel_size[1] // 2))
            gradients = torch.autograd.grad(out.square().sum(), inputs, create_graph=True)
            results.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in gradients), inputs))
    for actual, expected in zip(*results, strict=True):
        assert (actual - expected).norm() <= 1e-5 * expected.norm()


def test_non_contiguous_tensors(cpu_backend):
    x, weight, bias = random_inputs((20, 18), (5, 9), torch.float32, channels=6)
    strided = x.transpose(2, 3)[:, ::2, ::2, 3:], weight.transpose(2, 3)[::2], bias[::2]
    dense = [tensor.contiguous() for tensor in strided]
    torch.testing.assert_close(depthwise_conv2d(*strided, padding=4), depthwise_conv2d(*dense, padding=4))


@pytest.mark.parametrize(('size', 'kernel_size', 'stride'), [((9, 8), (5, 5), 2), ((56, 56), (51, 51), 1)])
def test_empty_batch(size, kernel_size, stride, cpu_backend):
    inputs = random_inputs(size, kernel_size, torch.float32, batch=0)
    out = depthwise_conv2d(*inputs, stride=stride, padding=kernel_size[0] // 2)
    assert out.shape == (0, 3, *(-(-side // stride) for side in size))
    x_grad, weight_grad, bias_grad = torch.autograd.grad(out.sum(), inputs)
    assert x_grad.shape == inputs[0].shape
    assert not weight_grad.any()
    assert not bias_grad.any()


def test_arguments_can_be_said_in_many_ways():
    x, weight, bias = random_inputs((6, 9), (3, 5), torch.float64)
    expected = F.conv2d(x, weight, bias, padding=(1, 2), groups=3)
    torch.testing.assert_close(depthwise_conv2d(x, weight, bias, padding=(1, 2)), expected)
    torch.testing.assert_close(depthwise_conv2d(x, weight, bias, padding=(2, 2, 1, 1)), expected)
    torch.testing.assert_close(
        depthwise_conv2d(x, weight, None, 2, 3, (2, 1)),
        F.conv2d(x, weight, stride=2, padding=3, dilation=(2, 1), groups=3),
    )


def test_equal_calls_are_planned_once_and_others_anew(plan_anew, monkeypatch):
    x, weight, bias = random_inputs((6, 9), (3, 5), torch.float32)
    for _ in range(2):
        depthwise_conv2d(x, weight, bias, padding=(1, 2))
        assert len(op._plans) == 1
    with pytest.raises(ValueError, match=r'^stride '):
        depthwise_conv2d(x, weight, bias, True, (1, 2))
    with pytest.raises(ValueError, match=r'^padding '):
        depthwise_conv2d(x, weight, bias, padding=(1, 2.0))
    expected = depthwise_conv2d(x, weight, bias, 2, (1, 2))
    torch.testing.assert_close(depthwise_conv2d(x, weight, bias, [2, 2], [1, 2]), expected)
    assert depthwise_conv2d(x[:, :, 1:], weight, bias, padding=(1, 2)).shape == (2, 3, 5, 9)
    transposed = weight.mT.contiguous().mT
    torch.testing.assert_close(depthwise_conv2d(x, transposed, bias, 2, (1, 2)), expected)
    with use_backend('reference'):
        assert 'Convolution' in type(depthwise_conv2d(x, weight, bias, padding=(1, 2)).grad_fn).__name__
    assert len(op._plans) == 6
    monkeypatch.setattr(Plans, '_MOST', 6)
    depthwise_conv2d(x, weight, None, padding=(1, 2))
    assert len(op._plans) == 1


def test_the_meta_device():
    x, weight, bias = (tensor.to('meta') for tensor in random_inputs((6, 9), (3, 5), torch.float32))
    assert depthwise_conv2d(x, weight, bias, padding=(1, 2)).shape == x.shape
    with pytest.raises(ValueError, match=r'^weight must be on the device of x, meta; got cpu'):
        depthwise_conv2d(x, torch.zeros(3, 1, 3, 5), bias)


def test_autocast_casts_and_gives_gradients_in_the_input_dtype():
    inputs = random_inputs((9, 8), (3, 13), torch.float32)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast('cpu', dtype=dtype):
            out = depthwise_conv2d(*inputs, padding=(1, 6))
        assert out.dtype == dtype
        gradients = torch.autograd.grad(out.float().square().sum(), inputs)
        assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_transforms_of_functions():
    x, weight, _ = random_inputs((6, 7), (3, 5), torch.float32)
    x, weight = x.detach(), weight.detach()

    def loss(weight, x):
        return depthwise_conv2d(x, weight, padding=(1, 2)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), (None, 0))(weight, x[:, None])
    for image, grad in zip(x[:, None], each, strict=True):
        weight.requires_grad_()
        torch.testing.assert_close(grad, torch.autograd.grad(loss(weight, image), weight)[0])
        weight.requires_grad_(False)


@pytest.mark.parametrize('geometry', GEOMETRY)
def test_the_short_way_past_the_dispatcher_differentiates_twice(geometry):
    inputs = random_inputs((4, 7), (3, 4), torch.float64, channels=2, batch=1)
    with use_backend('aten'):
        assert torch.autograd.gradcheck(lambda *t: depthwise_conv2d(*t, *geometry), inputs)
        assert torch.autograd.gradgradcheck(lambda *t: depthwise_conv2d(*t, *geometry), inputs)
        node = depthwise_conv2d(*inputs, *geometry).grad_fn
        with FlopCounterMode(display=False):
            assert type(depthwise_conv2d(*inputs, *geometry).grad_fn) is not type(node)


@pytest.mark.parametrize('dynamic', [False, pytest.param(True, marks=pytest.mark.slow)])
def test_compiled_without_a_break(dynamic):
    def function(*tensors):
        return depthwise_conv2d(*tensors, padding=(6, 8, 1, 1)).relu()

    compiled = torch.compile(function, fullgraph=True, backend='aot_eager', dynamic=dynamic)
    for size in ((9, 8), (24, 30)):
        inputs = random_inputs(size, (3, 15), torch.float32)
        torch.testing.assert_close(with_gradients(compiled, inputs), with_gradients(function, inputs))


def test_trains_under_ddp(tmp_path):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3, 1, 5, 15))

        def forward(self, x):
            return depthwise_conv2d(x, self.weight, padding=(2, 7))

    alone, x = Layer(), torch.randn(2, 3, 9, 20)
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        parallel = torch.nn.parallel.DistributedDataParallel(Layer())
        for model in (alone, parallel):
            model(x).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    torch.testing.assert_close(parallel.module.weight.grad, alone.weight.grad)


@pytest.mark.parametrize('padding', [(1, 6), (6, 8, 1, 1)])
def test_exported_as_a_plain_convolution(padding):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 1, 3, 13 if len(padding) == 2 else 15))

        def forward(self, x):
            return depthwise_conv2d(x, self.weight, padding=padding)

    layer, x = Layer(), torch.randn(1, 3, 20, 20)
    exported = torch.export.export(layer, (x,))
    targets = [str(node.target) for node in exported.graph.nodes if node.op == 'call_function']
    assert targets == (['aten.conv2d.default'] if len(padding) == 2 else ['aten.pad.default', 'aten.conv2d.default'])
    torch.testing.assert_close(exported.module()(x), layer(x), rtol=1e-5, atol=1e-5)
    with warnings.catch_warnings():  # of sizes that become constants
        warnings.simplefilter('ignore')
        traced = torch.jit.trace(layer, (x,), check_trace=False)
    assert 'sw_mm' not in str(traced.inlined_graph)


@pytest.mark.parametrize('backend', ['aten', 'native', 'reference'])
@pytest.mark.parametrize(('stride', 'dilation'), [(1, 1), (2, 1), (1, 2)])
def test_flops_are_counted(stride, dilation, backend):
    inputs = random_inputs((9, 8), (5, 13), torch.float32)
    macs = 2 * 3 * depthwise_macs((5, 13), (12, 12, 4, 4), 9, 8, (stride,) * 2, (dilation,) * 2)
    with use_backend(backend), FlopCounterMode(display=False) as counter:
        out = depthwise_conv2d(*inputs, stride, (12, 12, 4, 4), dilation)
        assert counter.get_total_flops() == 2 * macs
        out.sum().backward()
    if backend != 'reference':  # PyTorch counts the weight gradient of a grouped convolution once for each group.
        assert counter.get_total_flops() == 3 * 2 * macs


def test_macs_count_the_cropped_kernel():
    assert depthwise_macs((3, 3), (1, 1, 1, 1), 8, 5) == 9 * 40
    assert depthwise_macs((3, 51), (25, 25, 1, 1), 14, 14) == 3 * 27 * 14 * 14
    assert depthwise_macs((15, 3), (1, 1, 6, 8), 7, 7) == 13 * 3 * 49
    assert depthwise_macs((4, 4), (0, 0, 0, 0), 6, 5) == 16 * 3 * 2
    assert depthwise_macs((9, 9), (8, 8, 8, 8), 6, 6, dilation=(2, 2)) == 5 * 5 * 36
    assert depthwise_macs((9, 9), (4, 4, 4, 4), 8, 8, stride=(2, 2)) == 9 * 9 * 16


@pytest.mark.parametrize(
    ('name', 'change'),
    [
        ('x', {'x': torch.zeros(3, 6, 6)}),
        ('weight', {'weight': torch.zeros(4, 1, 3, 3)}),
        ('weight', {'weight': torch.zeros(3, 2, 3, 3)}),
        ('weight', {'weight': torch.zeros(3, 1, 3, 3).double()}),
        ('bias', {'bias': torch.zeros(4)}),
        ('stride', {'stride': 0}),
        ('stride', {'stride': True}),
        ('stride', {'stride': (1, 1.5)}),
        ('dilation', {'dilation': (1, 2, 3)}),
        ('dilation', {'dilation': '22'}),
        ('dilation', {'dilation': None}),
        ('weight', {'weight': torch.zeros(3, 1, 0, 3)}),
        ('padding', {'padding': 'same'}),
        ('padding', {'padding': (True, 1)}),
        ('padding', {'padding': (1, 1, 1)}),
        ('padding', {'padding': -1}),
        ('padding', {'weight': torch.zeros(3, 1, 9, 9), 'padding': 1}),
        ('padding', {'dilation': 4, 'padding': 1}),
    ],
)
def test_bad_arguments_are_named(name, change):
    arguments = {'x': torch.zeros(2, 3, 6, 6), 'weight': torch.zeros(3, 1, 3, 3), 'padding': 1} | change
    with pytest.raises(ValueError, match=f'^{name} '):
        depthwise_conv2d(**arguments)


@pytest.mark.parametrize('change', [{'x': [1.0]}, {'weight': None}])
def test_what_is_no_tensor_is_named(change):
    (name,) = change
    with pytest.raises(TypeError, match=f'^{name} must be a tensor; got '):
        depthwise_conv2d(**{'x': torch.zeros(2, 3, 6, 6), 'weight': torch.zeros(3, 1, 3, 3)} | change)
