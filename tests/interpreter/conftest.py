"""The Triton kernels under Triton's interpreter, which runs them on CPU tensors.

The interpreter is chosen while Triton is imported, so these tests need a process of their own:
``TRITON_INTERPRET=1 pytest tests/interpreter``. ``tests/kernels/test_interpreter_lane.py`` starts one.

The interpreter takes milliseconds for what a thread does in nanoseconds; maps and kernels are tiny.
"""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))  # for benchmarks/, which is not installed

if os.environ.get('TRITON_INTERPRET') != '1':
    collect_ignore_glob = ['test_*.py']


@pytest.fixture(autouse=True)
def unwritten_is_nan() -> Iterator[None]:
    """Fills new buffers with NaN, so that whatever a kernel forgets to write shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def assert_close() -> Callable[[Tensor, Tensor], None]:
    """Compares a result with its float64 reference: the norm of the error by that of the reference."""
    tolerance = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}

    def check(actual: Tensor, expected: Tensor) -> None:
        assert actual.shape == expected.shape
        error = torch.linalg.vector_norm(actual.double() - expected)
        assert error <= tolerance[actual.dtype] * torch.linalg.vector_norm(expected), float(error)

    return check
