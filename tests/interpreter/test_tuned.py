"""A configuration changes how a kernel is cut up, and not a bit of its result."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch

from benchmarks import aot, harness, sass, tune, workloads
from benchmarks.workloads import Shift, same
from sw_mm.kernels import _tuned
from sw_mm.kernels._tuned import Config, use_table
from sw_mm.kernels.depthwise_conv2d import triton as depthwise
from sw_mm.kernels.shift_conv2d import triton as shift

CONFIGS = Config(block=64, tile=2, column_tile=3), Config(tile=5, warps=1, registers=64)


def results(size: tuple[int, int], dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
    """Every pass of both convolutions."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    x, grad, bias = draw(1, 34, *size), draw(1, 34, *size), draw(34)
    weight, geometry = draw(34, 1, 3, 5), ((1, 1), (2, 2, 1, 1), (1, 1))
    strips = [draw(34, 1, *kernel_size) for kernel_size in ((1, 5), (5, 1), (1, 1))]
    paddings = (2, 2, 0, 0), (0, 0, 2, 2), (0, 0, 0, 0)
    return {
        'forward': [depthwise.forward(x, weight, bias, *geometry)],
        'input_grad': [depthwise.input_grad(grad, weight, size, *geometry)],
        'weight_grad': [depthwise.weight_grad(x, grad, (3, 5), *geometry)],
        'shift_maps': shift.maps(x, strips, paddings),
        'shift_sum': [shift.folded(x, strips[:2], bias, paddings[:2])],
        'shift_input_grad': [shift.input_grad([grad] * 3, strips, paddings)],
    }


@pytest.mark.parametrize(
    ('size', 'dtype'), [((5, 5), torch.float32), ((5, 5), torch.bfloat16), ((3, 5), torch.float32)], ids=str
)
def test_configurations_give_equal_bits(size, dtype, monkeypatch):
    # Several tiles by the rules too, so that rows share them.
    for module in (depthwise, shift):
        monkeypatch.setattr(module, '_LONGEST_TILE', 3)
    rules = results(size, dtype)
    for config in CONFIGS:
        searched = set()

        def get(key, default, config=config, searched=searched):
            searched.add(key.kernel)
            return config

        with use_table(SimpleNamespace(get=get)):
            tuned = results(size, dtype)
        assert searched == set(_tuned.KERNELS)
        for kernel, expected in rules.items():
            assert all(map(torch.equal, tuned[kernel], expected)), (kernel, config)


def test_no_table_is_searched_in_the_interpreter(monkeypatch):
    assert _tuned.INTERPRETED
    monkeypatch.setattr(torch.cuda, 'get_device_properties', None)
    for device in ('cpu', 'cuda:0'):
        assert _tuned.of_device(torch.device(device)) == {}


@pytest.fixture
def tiny(monkeypatch):
    """The kernels of two layers to tune; nothing is compiled and nothing is timed."""
    code = aot.Code(sass.Resources(40, 0, 0, 0), [sass.Mix(100, 90, 0, 100)])
    monkeypatch.setattr(tune, 'draw', partial(tune.draw, device='cpu'))
    monkeypatch.setattr(aot, 'compile_launch', lambda launch, target: b'')
    monkeypatch.setattr(aot, 'inspect', lambda cubin: code)
    monkeypatch.setattr(harness, 'gpu_times', lambda runs, seconds: dict.fromkeys(runs, 1.0))
    layers = {same(34, 4, (1, 9), stride=2): 1, Shift(34, (4, 4), 5, 1, 4): 1}
    monkeypatch.setattr(workloads, 'MODELS', {'net': lambda: layers})
    return aot.jobs(['net'], [torch.float32], ['sm_90'])


def test_what_is_timed_agrees_with_the_reference(tiny):
    for job in tiny:
        taken = tune.times(job, batch=1, seconds=0)
        assert len(taken) > 1
        assert next(iter(taken)) == Config()


@pytest.mark.parametrize(('factor', 'message'), [(1 + 1e-6, 'other bits with .*warps=2'), (1.01, 'is wrong')])
def test_a_wrong_configuration_stops_the_tuner(factor, message, tiny, monkeypatch):
    def results(launch):
        return [launch.arguments['out'] * (factor if launch.num_warps > 1 else 1)]

    monkeypatch.setattr(tune, 'results', results)
    with pytest.raises(RuntimeError, match=message):
        tune.times(tiny[0], batch=1, seconds=0)
