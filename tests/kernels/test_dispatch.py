"""The choice of a backend: unasked, by environment variable, by context manager."""

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sw_mm.kernels import _dispatch, backends, depthwise_conv2d, use_backend

x, weight = torch.randn(1, 2, 9, 8), torch.randn(2, 1, 5, 5, requires_grad=True)


def used(x=x, weight=weight):
    """Name the backend that computes: the plain form shows as PyTorch's convolution."""
    with FlopCounterMode(display=False) as counter:
        depthwise_conv2d(x, weight, padding=2)
    (operator,) = counter.get_flop_counts()['Global']
    return 'reference' if 'aten.convolution' in str(operator) else 'custom'


def run(*arguments, **environment):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env={'PATH': '', **environment}, capture_output=True, text=True, timeout=120)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The environment as it was at import, to be set instead of it."""
    monkeypatch.setattr(_dispatch, '_from_environment', None)
    return lambda value: monkeypatch.setattr(_dispatch, '_from_environment', value)


def test_chosen_by_dtype_and_device():
    assert used() == 'custom'
    assert used(x.double(), weight.double()) == 'reference'
    assert used(x.to('meta'), weight.to('meta')) == 'reference'


def test_inference_leaves_to_pytorch_what_it_does_best():
    channels_last = x.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        assert used(channels_last) == 'reference'
        assert used(channels_last.half(), weight.half()) == 'custom'
        with use_backend('aten'):
            assert used(channels_last) == 'custom'


def test_environment_and_context_manager(environment):
    environment('reference')
    assert used() == 'reference'
    with use_backend('aten'):
        assert used(x.double(), weight.double()) == 'custom'
        with use_backend('reference'):
            assert used() == 'reference'
        assert used() == 'custom'
    with use_backend('auto'):
        assert used() == 'custom'
    assert used() == 'reference'
    environment('')
    assert used() == 'custom'


def test_context_manager_ends_with_an_error():
    with pytest.raises(KeyError), use_backend('reference'):
        raise KeyError
    assert used() == 'custom'


def test_threads_choose_for_themselves():
    with use_backend('reference'), ThreadPoolExecutor(1) as pool:
        assert pool.submit(used).result() == 'custom'
        assert used() == 'reference'


def test_gradients_stay_with_the_backend_of_the_output():
    with use_backend('aten'):
        out = depthwise_conv2d(x, weight, padding=2)
    with use_backend('reference'), FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert [str(operator) for operator in counter.get_flop_counts()['Global']] == ['sw_mm.depthwise_conv2d_weight_grad']


def test_compiled_functions_obey():
    graphs = []

    def keep(graph, inputs):
        graphs.append(str(graph.code))
        return graph.forward

    def function(x, weight):
        return depthwise_conv2d(x, weight, padding=2)

    def on_reference(x, weight):
        with use_backend('reference'):
            return depthwise_conv2d(x, weight, padding=2)

    compiled = torch.compile(function, backend=keep, fullgraph=True)
    expected = compiled(x, weight)
    assert 'sw_mm' in graphs[-1]
    with use_backend('reference'):
        torch.testing.assert_close(compiled(x, weight), expected)
    assert len(graphs) == 2
    assert 'sw_mm' not in graphs[-1]
    torch.testing.assert_close(torch.compile(on_reference, backend=keep)(x, weight), expected)


def test_unknown_names_are_refused(environment):
    with pytest.raises(ValueError, match="name must be 'auto' or one of"), use_backend('cudnn'):
        pass
    environment('cudnn')
    with pytest.raises(ValueError, match='SW_MM_KERNELS must be'):
        depthwise_conv2d(x, weight)


@pytest.mark.skipif(torch.cuda.is_available(), reason='the request can be met')
def test_requests_that_cannot_be_met_say_why():
    assert backends()['reference'] is None
    assert 'no CUDA device' in backends()['triton']
    with use_backend('triton'), pytest.raises(RuntimeError, match=r"'triton'.*no CUDA device"):
        depthwise_conv2d(x, weight)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_cpu_backend_refuses_a_gpu():
    with use_backend('aten'), pytest.raises(RuntimeError, match='x is on cuda'):
        depthwise_conv2d(x.cuda(), weight.cuda())
    assert used(x.cuda(), torch.randn(2, 1, 9, 9).cuda()) == 'custom'


@pytest.mark.parametrize(
    ('stub', 'reason'),
    [
        ("__version__ = '2.1.0'", r'need Triton \d.*this is Triton 2\.1\.0'),
        ("raise ModuleNotFoundError('No module named triton')", 'No module named triton'),
    ],
)
def test_triton_may_be_old_or_missing(tmp_path, stub, reason):
    (tmp_path / 'triton').mkdir()
    (tmp_path / 'triton' / '__init__.py').write_text(stub)
    (tmp_path / 'triton' / 'language.py').touch()
    root = Path(__file__).parents[2]
    code = 'from sw_mm.kernels import backends; print(backends()["triton"])'
    result = run('-c', code, PYTHONPATH=f'{tmp_path}:{root}')
    assert result.returncode == 0, result.stderr
    assert re.search(reason, result.stdout), result.stdout


def test_autocast_does_not_depend_on_what_was_computed_before():
    inputs = x.contiguous(memory_format=torch.channels_last), weight.detach()
    for _ in range(2):
        with torch.autocast('cpu', dtype=torch.float16), torch.no_grad():
            assert used(*inputs) == 'custom'
        with torch.no_grad():
            depthwise_conv2d(*inputs, padding=2)


def test_command_lists_backends_and_layers():
    result = run('-m', 'sw_mm.kernels', SW_MM_KERNELS='reference')
    assert result.returncode == 0, result.stderr
    assert 'requested  reference' in result.stdout
    for word in ('triton', 'RepLKNet-31B', 'cpu bfloat16'):
        assert word in result.stdout


def test_triton_kernels_can_be_compiled_around():
    code = """
import torch
from sw_mm.kernels import depthwise_conv2d
x, weight = torch.randn(1, 2, 5, 4), torch.randn(2, 1, 3, 3, requires_grad=True)
function = torch.compile(lambda x, w: depthwise_conv2d(x, w, padding=1), fullgraph=True, backend='aot_eager')
torch.testing.assert_close(function(x, weight), torch.nn.functional.conv2d(x, weight, padding=1, groups=2))
"""
    result = run('-c', code, TRITON_INTERPRET='1', SW_MM_KERNELS='triton')
    assert result.returncode == 0, result.stderr
