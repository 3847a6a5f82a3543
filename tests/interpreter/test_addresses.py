"""Batches of more than 2**32 elements, nearly all of them never touched: a kernel runs its last programs only."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from triton.runtime.interpreter import interpreter_builder

from sw_mm.kernels._triton import Launch
from sw_mm.kernels.depthwise_conv2d import triton as depthwise
from sw_mm.kernels.shift_conv2d import triton as shift

SIZE = 5, 32, 2**21, 13
END = 64  # rows at the end of the last image that hold data
GEOMETRY = (1, 1), (1, 1, 1, 1), (1, 1)
PADDING = 1, 1, 1, 1


@pytest.fixture
def run_program(monkeypatch: pytest.MonkeyPatch) -> Callable[[Launch, int], None]:
    """Runs one program of a launch, counted from the end."""

    def run(launch: Launch, program: int) -> None:
        index = (launch.grid[0] + program, 0, 0)
        with monkeypatch.context() as patch:
            patch.setattr(
                interpreter_builder, 'set_grid_idx', lambda *_: setattr(interpreter_builder, 'grid_idx', index)
            )
            launch.kernel[(1,)](**launch.arguments, **launch.constants, **launch.options)

    return run


@pytest.fixture
def huge(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', False)
    x = torch.empty(SIZE, dtype=torch.bfloat16, memory_format=torch.channels_last)
    assert x.numel() > 2**32
    x[-1, :, -END:] = torch.randn(SIZE[1], END, SIZE[3])
    return x


def draw(kernels: int) -> list[Tensor]:
    return [torch.randn(SIZE[1], 1, 3, 3) for _ in range(kernels)]


def check_end(out: Tensor, x: Tensor, kernels: list[Tensor]) -> None:
    """Compares what was written at the end of the last image; memory from the system starts as zeros."""
    end = x[-1:, :, -END:].float()
    expected = sum(F.conv2d(end, kernel, padding=1, groups=SIZE[1]) for kernel in kernels)[0]
    actual = out[-1, :, -END:].float()
    written = actual != 0
    assert written.any()
    torch.testing.assert_close(actual[written], expected[written], rtol=1e-2, atol=1e-1)


def test_depthwise_forward_and_input_grad(huge, run_program):
    (weight,) = draw(1)
    launch = depthwise.plan_forward(huge, weight, None, *GEOMETRY)
    run_program(launch, -1)
    check_end(launch.arguments['out'], huge, [weight])
    launch = depthwise.plan_input_grad(huge, weight, SIZE[2:], *GEOMETRY)
    run_program(launch, -1)
    check_end(launch.arguments['out'], huge, [weight.flip(2, 3)])


def test_depthwise_weight_grad(huge, run_program, monkeypatch):
    monkeypatch.setattr(depthwise, '_WEIGHT_GRAD_WARPS', 2**19)
    launch = depthwise.plan_weight_grad(huge, huge, (3, 3), *GEOMETRY)
    rows = SIZE[2] % launch.arguments['lines_per_split']  # of the last split
    assert rows < END
    for tap in (-3, -2, -1):
        run_program(launch, tap)
    end = huge[-1:, :, -END:].double()
    weight = torch.zeros(SIZE[1], 1, 3, 3, dtype=torch.float64, requires_grad=True)
    grad = end.clone()
    grad[:, :, : END - rows] = 0
    F.conv2d(end, weight, padding=1, groups=SIZE[1]).backward(grad)
    actual = launch.arguments['partial'][-1].permute(2, 0, 1).unsqueeze(1)
    torch.testing.assert_close(actual.double(), weight.grad, rtol=1e-4, atol=1e-4)


def test_shift_wise(huge, run_program):
    kernels, paddings = draw(3), [PADDING] * 3
    launch = shift.plan_maps(huge, kernels, paddings)
    columns = SIZE[3] * -(-SIZE[2] // launch.constants['COLUMN'].tile)
    run_program(launch, -1 - columns)
    run_program(launch, -1)
    for name, kernel in zip(('horizontal', 'vertical', 'centre'), kernels, strict=True):
        check_end(launch.arguments[f'out_{name}'], huge, [kernel])
    launch = shift.plan_folded(huge, kernels[:2], None, paddings[:2])
    run_program(launch, -1)
    check_end(launch.arguments['out'], huge, kernels[:2])
