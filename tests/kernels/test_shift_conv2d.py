"""The strip form of the shift-wise convolution against its literal form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from sw_mm.kernels import folded_shift_conv2d, shift_conv2d, shift_strips, shift_tables, use_backend
from sw_mm.kernels.shift_conv2d import reference

GEOMETRIES = [(13, 3), (7, 3), (11, 5), (5, 3), (51, 3), (9, 7)]
SIZES = [(9, 12), (8, 7), (1, 6), (5, 1), (1, 1), (16, 15)]


def make(kernel_size, small_kernel, num_edges, size, channels=3, batch=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    tables = shift_tables(channels, kernel_size, small_kernel, num_edges)
    filters = channels * tables.num_shifts, 1, small_kernel, small_kernel
    x = torch.randn(batch, channels, *size, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(filters, generator=generator, dtype=dtype).requires_grad_()
    return x, weight, tables


def assert_equal_maps_and_gradients(x, weight, tables, **tolerance):
    maps, expected = shift_conv2d(x, weight, tables), reference.shift_conv2d(x, weight, tables)
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in expected]
    torch.testing.assert_close(maps, expected, **tolerance)
    gradients = torch.autograd.grad(maps, (x, weight), cotangents)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, (x, weight), cotangents), **tolerance)


@pytest.mark.parametrize('num_edges', [1, 2, 3, 4])
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize(('kernel_size', 'small_kernel'), GEOMETRIES)
def test_strips_equal_the_literal_form(kernel_size, small_kernel, size, num_edges):
    assert_equal_maps_and_gradients(*make(kernel_size, small_kernel, num_edges, size))


@pytest.mark.parametrize(('kernel_size', 'size'), [(49, (27, 30)), (47, (26, 25)), (13, (10, 20))])
def test_off_centre_strips_that_fit_the_map(kernel_size, size):
    """Strips of 49, 47 and 13 reach two, one and two pixels further to one side; here no tap is cropped."""
    assert_equal_maps_and_gradients(*make(kernel_size, 3, 2, size, channels=2, batch=1))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_geometry_on_any_map(data):
    small_kernel = data.draw(st.sampled_from([1, 3, 5, 7]))
    kernel_size = data.draw(st.integers(small_kernel, 20))
    size = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    arguments = make(
        kernel_size, small_kernel, data.draw(st.integers(1, 4)), size, channels=data.draw(st.integers(1, 3))
    )
    assert_equal_maps_and_gradients(*arguments)


@pytest.mark.parametrize('kernel_size', [13, 49, 51])
@pytest.mark.parametrize('channels_last', [False, True])
def test_fp32_route(kernel_size, channels_last, cpu_backend):
    """fp32 on a CPU takes other convolutions than fp64 does."""
    x, weight, tables = make(kernel_size, 3, 4, (30, 33), channels=5, dtype=torch.float32)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    assert_equal_maps_and_gradients(x, weight, tables, rtol=1e-4, atol=1e-3)
    for y in shift_conv2d(x, weight, tables):
        assert y.is_contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_gradients_of_gradients(dtype):
    """Numerically in fp64; in fp32, which takes the custom operators, against fp64."""
    x, weight, tables = make(5, 3, 2, (3, 4), channels=2, batch=1)
    if dtype is torch.float64:
        assert torch.autograd.gradcheck(lambda *inputs: shift_conv2d(*inputs, tables), (x, weight))
        assert torch.autograd.gradgradcheck(lambda *inputs: shift_conv2d(*inputs, tables), (x, weight))
        return

    def second_order(x, weight):
        loss = sum(y.pow(3).sum() for y in shift_conv2d(x, weight, tables))
        gradients = torch.autograd.grad(loss, (x, weight), create_graph=True)
        return torch.autograd.grad(sum(g.pow(2).sum() for g in gradients), (x, weight))

    single = second_order(x.detach().to(dtype).requires_grad_(), weight.detach().to(dtype).requires_grad_())
    for value, expected in zip(single, second_order(x, weight), strict=True):
        assert (value - expected).norm() < 1e-5 * expected.norm()


PADDINGS = [2, 1, 1, 1, 1, 1, 3, 1, 1, 1, 1, 1]


def operator_inputs(branches, dtype=torch.float64, channels=1, channels_last=False):
    """Input, kernels, paddings and gradients of the branches, as the operators take them."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator, dtype=dtype).requires_grad_()

    x = random(1, channels, 3, 4)
    if channels_last:
        x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    kernels = [random(channels, 1, *size) for size in ((3, 4), (5, 3), (3, 3))[:branches]]
    return x, kernels, PADDINGS[: 4 * branches], [random(*x.shape) for _ in kernels]


@pytest.mark.parametrize('branches', [2, 3])
def test_operators_differentiate_twice(branches):
    x, kernels, paddings, grads = operator_inputs(branches)
    ops, bias = torch.ops.sw_mm, torch.randn(1, dtype=torch.float64, requires_grad=True)
    for function, inputs in (
        (lambda x, *kernels: tuple(ops.shift_maps(x, kernels, paddings, 'aten')), (x, *kernels)),
        (lambda x, bias, *kernels: ops.shift_folded(x, kernels, bias, paddings, 'aten'), (x, bias, *kernels)),
        (lambda *t: ops.shift_input_grad(t[:branches], t[branches:], paddings, 'aten'), (*grads, *kernels)),
        (lambda x, *grads: tuple(ops.shift_weight_grads(x, grads, kernels, paddings, 'aten')), (x, *grads)),
    ):
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize('channels_last', [False, True])
def test_operators_keep_their_contract(channels_last, cpu_backend):
    x, kernels, paddings, grads = operator_inputs(3, torch.float32, 2, channels_last)
    ops, bias = torch.ops.sw_mm, torch.randn(2, requires_grad=True)
    torch.library.opcheck(ops.shift_maps, (x, kernels, paddings, cpu_backend))
    torch.library.opcheck(ops.shift_folded, (x, kernels, bias, paddings, cpu_backend))
    torch.library.opcheck(ops.shift_input_grad, (grads, kernels, paddings, cpu_backend))
    torch.library.opcheck(ops.shift_weight_grads, (x, grads, kernels, paddings, cpu_backend))


@pytest.mark.parametrize('deploy', [False, True])
def test_compiled_without_a_break(deploy):
    x, weight, tables = make(13, 3, 4, (6, 9), dtype=torch.float32)
    horizontal, vertical, _ = (kernel.detach().requires_grad_() for kernel in shift_strips(weight, tables))
    bias = torch.randn(3, requires_grad=True)

    def function(*tensors):
        if deploy:
            return folded_shift_conv2d(*tensors, tables).sin()
        return sum(shift_conv2d(*tensors, tables)).sin()

    inputs = (x, horizontal, vertical, bias) if deploy else (x, weight)
    outs = [f(*inputs) for f in (torch.compile(function, fullgraph=True, backend='aot_eager'), function)]
    torch.testing.assert_close(*outs)
    torch.testing.assert_close(*(torch.autograd.grad(out.sum(), inputs) for out in outs))


@pytest.mark.parametrize('deploy', [False, True])
def test_flops_are_counted(deploy):
    x, weight, tables = make(13, 3, 4, (6, 9), dtype=torch.float32)
    horizontal, vertical, _ = shift_strips(weight, tables)

    def count(backend):
        with use_backend(backend), FlopCounterMode(display=False) as counter:
            if deploy:
                folded_shift_conv2d(x, horizontal, vertical, torch.zeros(3), tables)
            else:
                shift_conv2d(x, weight, tables)
        return counter.get_total_flops()

    assert count('aten') == count('reference')


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_non_contiguous_input(dtype, cpu_backend):
    if (cpu_backend, dtype) == ('native', torch.float64):
        pytest.skip('its sums are fp32')
    x, weight, tables = make(13, 3, 2, (8, 10), dtype=dtype)
    strided = x.detach().repeat(1, 1, 2, 1).transpose(2, 3)[:, :, ::2, 3:9]
    torch.testing.assert_close(
        shift_conv2d(strided, weight, tables), shift_conv2d(strided.contiguous(), weight, tables), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_empty_batch(dtype, cpu_backend):
    if (cpu_backend, dtype) == ('native', torch.float64):
        pytest.skip('its sums are fp32')
    x, weight, tables = make(13, 3, 2, (8, 10), batch=0, dtype=dtype)
    maps = shift_conv2d(x, weight, tables)
    assert [y.shape for y in maps] == [x.shape] * 3
    grad_x, grad_weight = torch.autograd.grad(sum(y.sum() for y in maps), (x, weight))
    assert grad_x.shape == x.shape
    assert torch.equal(grad_weight, torch.zeros_like(weight))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('channels_last', [False, True])
def test_on_a_gpu(channels_last):
    x, weight, tables = make(49, 3, 4, (28, 30), channels=6)
    expected = shift_conv2d(x, weight, tables)
    expected += torch.autograd.grad(sum(y.square().sum() for y in expected), (x, weight))
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    inputs = x.detach().cuda().contiguous(memory_format=memory_format).requires_grad_(), weight.detach().cuda()
    inputs[1].requires_grad_()
    actual = shift_conv2d(*inputs, tables)
    actual += torch.autograd.grad(sum(y.square().sum() for y in actual), inputs)
    torch.testing.assert_close(actual, expected, check_device=False)


@pytest.mark.parametrize(('dtype', 'bound'), [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_low_precision(dtype, bound, cpu_backend):
    x, weight, tables = make(13, 3, 4, (12, 11))
    expected = reference.shift_conv2d(x, weight, tables)
    grad_expected = torch.autograd.grad(sum(y.sum() for y in expected), (x, weight))
    low = [tensor.detach().to(dtype).requires_grad_() for tensor in (x, weight)]
    maps = shift_conv2d(*low, tables)
    grad = torch.autograd.grad(sum(y.sum() for y in maps), low)
    for value, wanted in zip((*maps, *grad), (*expected, *grad_expected), strict=True):
        assert value.dtype == dtype
        assert (value - wanted).norm() < bound * wanted.norm()


def test_a_kept_connection_matrix_serves_as_well():
    x, weight, tables = make(13, 3, 4, (6, 6))
    connections = torch.as_tensor(tables.connection_matrix())
    torch.testing.assert_close(shift_strips(weight, tables, connections), shift_strips(weight, tables))
    torch.testing.assert_close(shift_conv2d(x, weight, tables, connections), shift_conv2d(x, weight, tables))


@pytest.mark.parametrize('channels', [3, 16, 20])
@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_folded_form_adds_its_strips(dtype, channels_last, channels):
    x, weight, tables = make(13, 3, 4, (6, 9), channels, dtype=dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    horizontal, vertical, _ = shift_strips(weight, tables)
    bias = torch.randn(channels, dtype=dtype)
    maps = shift_conv2d(x, weight, tables)
    folded = folded_shift_conv2d(x, horizontal, vertical, bias, tables)
    torch.testing.assert_close(folded, maps[0] + maps[1] + bias.view(-1, 1, 1))
    assert folded.stride() == x.stride()


def test_wrong_shapes_are_named():
    x, weight, tables = make(13, 3, 4, (6, 6))
    with pytest.raises(ValueError, match='weight must be'):
        shift_conv2d(x, weight[:-1], tables)
    for bad in (x[:, :2], x[0]):
        with pytest.raises(ValueError, match='x must be'):
            shift_conv2d(bad, weight, tables)
    strips = shift_strips(weight, tables)[:2]
    with pytest.raises(ValueError, match='horizontal must have'):
        folded_shift_conv2d(x, *reversed(strips), torch.zeros(3, dtype=torch.float64), tables)
