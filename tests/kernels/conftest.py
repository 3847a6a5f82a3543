"""The two backends for a CPU, one after the other."""

import pytest

from sw_mm.kernels import backends, use_backend


@pytest.fixture(params=['aten', 'native'])
def cpu_backend(request):
    """Compute with this backend for the length of a test."""
    if reason := backends()[request.param]:
        pytest.skip(reason)
    with use_backend(request.param):
        yield request.param
