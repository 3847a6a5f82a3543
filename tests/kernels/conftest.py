"""The two backends for a CPU, one after the other, and calls that are planned anew."""

import pytest

from sw_mm.kernels import backends, use_backend
from sw_mm.kernels._plans import Plans
from sw_mm.kernels.depthwise_conv2d import native, op


@pytest.fixture(params=['aten', 'native'])
def cpu_backend(request):
    """Compute with this backend for the length of a test."""
    if reason := backends()[request.param]:
        pytest.skip(reason)
    with use_backend(request.param):
        yield request.param


@pytest.fixture
def plan_anew(monkeypatch):
    """Put the plans of other tests away; the function given does so once more."""

    def put_away():
        for module in (op, native):
            monkeypatch.setattr(module, '_plans', Plans())

    put_away()
    return put_away
