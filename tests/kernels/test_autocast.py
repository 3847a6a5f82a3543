"""Autocast treats the operators as it treats ``F.conv2d``, called by their public functions or directly."""

from contextlib import nullcontext
from itertools import product

import pytest
import torch
from torch.nn import functional as F

from sw_mm.kernels import depthwise_conv2d, folded_shift_conv2d, shift_conv2d, shift_strips, shift_tables

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
DEVICES = [
    'cpu',
    pytest.param(
        'cuda',
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')],
    ),
]
OPERATORS = torch.ops.sw_mm


def tensors(*dtypes, device='cpu'):
    """A map, kernels and a bias; the kernels are wide enough for every route but the transform."""
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 3, 12, 20), (3, 1, 3, 17), (3,)
    dtypes = dtypes * 3 if len(dtypes) == 1 else dtypes
    return [
        torch.randn(shape, generator=generator).to(device, dtype).requires_grad_()
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def ours(x, weight, bias):
    return depthwise_conv2d(x, weight, bias, padding=(1, 8))


def pytorch(x, weight, bias):
    return F.conv2d(x, weight, bias, padding=(1, 8), groups=3)


def operator(x, weight, bias):
    return OPERATORS.depthwise_conv2d(x, weight, bias, (1, 1), (8, 8, 1, 1), (1, 1), 'aten')


def outcome(function, inputs):
    """Dtype of output and gradients, or None if the call is refused."""
    try:
        out = function(*inputs)
    except (RuntimeError, ValueError):
        return None
    return out.dtype, [gradient.dtype for gradient in torch.autograd.grad(out.float().sum(), inputs)]


def regions(device):
    """Contexts to compute in: plain, both low precisions, nested."""
    yield [nullcontext()]
    for dtype in (torch.bfloat16, torch.float16):
        yield [torch.autocast(device, dtype=dtype)]
        yield [torch.autocast(device, dtype=dtype), torch.autocast(device, enabled=False)]
    yield [torch.autocast(device, dtype=torch.bfloat16), torch.autocast(device, dtype=torch.float16)]


@pytest.mark.parametrize('device', DEVICES)
@pytest.mark.parametrize('dtypes', list(product(DTYPES, repeat=2)), ids=str)
def test_dtypes_are_those_of_pytorch(dtypes, device):
    inputs = tensors(*dtypes, dtypes[1], device=device)
    for region in regions(device):
        with region[0], region[-1] if len(region) > 1 else nullcontext():
            expected = outcome(pytorch, inputs)
            assert outcome(ours, inputs) == expected
            if device == 'cpu' and expected is not None:
                assert outcome(operator, inputs) == expected


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('function', [ours, operator])
def test_gradients_stay_exact_where_only_backward_runs_under_autocast(function, dtype):
    inputs = tensors(torch.float32)
    double = [tensor.detach().double().requires_grad_() for tensor in inputs]
    with torch.autocast('cpu', dtype=dtype):
        expected = torch.autograd.grad(pytorch(*double).square().sum(), double)
    out = function(*inputs)
    with torch.autocast('cpu', dtype=dtype):
        actual = torch.autograd.grad(out.square().sum(), inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4, check_dtype=False)


def shift_inputs():
    generator = torch.Generator().manual_seed(0)
    tables = shift_tables(3, 13, 3, 2)
    x = torch.randn(2, 3, 9, 8, generator=generator).requires_grad_()
    weight = torch.randn(3 * tables.num_shifts, 1, 3, 3, generator=generator).requires_grad_()
    return x, weight, tables


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
@pytest.mark.parametrize('direct', [False, True])
def test_shift_wise_convolutions_are_cast(dtype, direct):
    x, weight, tables = shift_inputs()
    strips = [strip.detach() for strip in shift_strips(weight, tables)]
    paddings = [6, 8, 1, 1, 1, 1, 6, 8, 1, 1, 1, 1]
    bias = torch.ones(3)
    with torch.autocast('cpu', dtype=dtype):
        if direct:
            kernels = [strip.requires_grad_() for strip in strips]
            maps = OPERATORS.shift_maps(x, kernels, paddings, 'aten')
            folded = OPERATORS.shift_folded(x, kernels[:2], bias, paddings[:8], 'aten')
            inputs = x, *kernels
        else:
            maps = shift_conv2d(x, weight, tables)
            folded = folded_shift_conv2d(x, *strips[:2], bias, tables)
            inputs = x, weight
    assert {y.dtype for y in (*maps, folded)} == {dtype}
    gradients = torch.autograd.grad(sum(y.float().sum() for y in maps), inputs)
    assert {gradient.dtype for gradient in gradients} == {torch.float32}


def test_shift_gradients_stay_exact_where_only_backward_runs_under_autocast():
    x, weight, tables = shift_inputs()
    strips = [strip.detach().requires_grad_() for strip in shift_strips(weight, tables)]

    def gradients(inputs, region):
        x, *kernels = inputs
        maps = OPERATORS.shift_maps(x, kernels, [6, 8, 1, 1, 1, 1, 6, 8, 1, 1, 1, 1], 'aten')
        with region:
            return torch.autograd.grad(sum(y.square().sum() for y in maps), inputs)

    inputs = x, *strips
    expected = gradients([tensor.detach().double().requires_grad_() for tensor in inputs], nullcontext())
    actual = gradients(inputs, torch.autocast('cpu', dtype=torch.bfloat16))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-3, check_dtype=False)


@pytest.mark.parametrize('function', [ours, operator])
@pytest.mark.parametrize('inside', [False, True])
def test_compiled_under_autocast(function, inside):
    """Whether the region encloses the compiled function or stands in it."""
    inputs = tensors(torch.float32)

    def with_region(*tensors):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            return function(*tensors)

    compiled = torch.compile(with_region if inside else function, fullgraph=True, backend='aot_eager')
    with nullcontext() if inside else torch.autocast('cpu', dtype=torch.bfloat16):
        out = compiled(*inputs)
    expected = with_region(*inputs)
    torch.testing.assert_close(out, expected)
    gradients = (torch.autograd.grad(y.float().square().sum(), inputs) for y in (out, expected))
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_exported_under_autocast():
    class Layer(torch.nn.Module):
        def forward(self, *inputs):
            with torch.autocast('cpu', dtype=torch.bfloat16):
                return ours(*inputs)

    inputs = tuple(tensor.detach() for tensor in tensors(torch.float32))
    program = torch.export.export(Layer(), inputs)
    assert 'sw_mm' not in str(program.graph)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.testing.assert_close(program.module()(*inputs), pytorch(*inputs))


def test_operators_keep_their_contract_under_autocast():
    inputs = tensors(torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        torch.library.opcheck(OPERATORS.depthwise_conv2d, (*inputs, (1, 1), (8, 8, 1, 1), (1, 1), 'aten'))
