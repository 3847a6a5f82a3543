"""The gate on compiled kernels: its rules by hand, and the kernels at their main shapes."""

import os

import pytest
import torch

from benchmarks import aot, sass, workloads
from benchmarks.workloads import Shift, same

ROW = {
    'kernel': 'forward',
    'layer': '512x14x14 k27x27',
    'dtype': 'float32',
    'registers': 128,
    'stack': 0,
    'local': 0,
    'channel_tail': 0,
    'loop_mma': 0,
    'fma_share': 0.75,
}
WHY = (
    ('registers', 'forward .* k27x27 float32', 'two lines at once'),
    ('share', '^forward .* k13x13', 'short lines'),
    ('spill', '.', 'no excuse'),
)


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        ({}, 'ok'),
        ({'stack': 8}, 'spill: FAIL'),
        ({'local': 8}, 'spill: FAIL'),
        ({'registers': 129}, 'registers: two lines at once'),
        ({'registers': 129, 'kernel': 'weight_grad'}, 'registers: FAIL'),
        ({'fma_share': 0.749}, 'share: FAIL'),
        ({'fma_share': 0.65, 'channel_tail': 1}, 'ok'),
        ({'fma_share': 0.649, 'channel_tail': 1}, 'share: FAIL'),
        ({'fma_share': 0.6, 'dtype': 'bfloat16'}, 'ok'),
        ({'fma_share': 0.599, 'dtype': 'bfloat16'}, 'share: FAIL'),
        ({'fma_share': 0.55, 'dtype': 'bfloat16', 'channel_tail': 1}, 'ok'),
        ({'fma_share': 0.1, 'layer': '640x7x7 k13x13'}, 'share: short lines'),
        ({'stack': 8, 'fma_share': 0.1, 'layer': '640x7x7 k13x13'}, 'spill: FAIL; share: short lines'),
        ({'fma_share': 0.0, 'loop_mma': 16}, 'ok'),
        ({'registers': 200, 'stack': 8, 'fma_share': 0.2}, 'spill: FAIL; registers: two lines at once; share: FAIL'),
    ],
)
def test_verdicts(change, expected):
    assert aot.verdict({**ROW, **change}, WHY) == expected


def test_bounds_by_hand():
    """One multiply-add in two instructions, four bytes loaded for each; 32 of each run at once in a warp."""
    gpu = aot.Gpu('small', 90, multiprocessors=2, clock=1e9, fma=4, bandwidth=1e12)
    loops = [sass.Mix(instructions=20, fma=10, mma=0, load_bytes=40), sass.Mix(30, fma=10, mma=0, load_bytes=50)]
    times = aot.bounds(32e9, int(3e12), loops, gpu)
    assert times == pytest.approx(
        {'memory': 3.0, 'multiply-adds': 1e9 / 8e9, 'instructions': 2e9 / 8e9, 'loads': 1e9 * 4 * 32 / (128 * 2e9)}
    )


def test_gpus_have_the_peaks_of_their_data_sheets():
    peaks = {name: gpu.multiprocessors * gpu.clock * gpu.fma * 32 * 2 / 1e12 for name, gpu in aot.GPUS.items()}
    assert peaks == pytest.approx({'sm_80': 19.5, 'sm_90': 66.9}, rel=2e-3)


def test_summary_adds_up_the_layers_of_a_model():
    rows = [
        {**ROW, 'model': 'net', 'target': 'sm_90', 'count': count, 'bound_us': 10.0, 'memory_us': 5.0, **change}
        for count, change in (
            (3, {'verdict': 'ok'}),
            (2, {'registers': 40, 'fma_share': 0.8, 'stack': 8, 'verdict': 'x'}),
        )
    ]
    (line,) = aot.summary(rows)
    expected = {'layers': 2, 'registers': 128, 'spills': 1, 'least_share': 0.75, 'bound_ms': '0.05', 'remarks': 1}
    assert expected.items() <= line.items()


# Every kernel where models spend most of their time, large maps apart, which take long to compile.
MAIN = {
    'RepLKNet-31B': ['512x14x14 k27x27'],
    'SLaK-T': ['499x14x14 k47x5', '499x14x14 k5x47'],
    'UniRepLKNet-T': ['320x14x14 k13x13', '160x28x28 k13x13', '640x7x7 k13x13', '320x14x14 k3x3 d3'],
    'SW-T': ['246x14x14 47/3'],
}


def check(jobs):
    pytest.importorskip('triton')
    if os.environ.get('TRITON_INTERPRET') == '1':
        pytest.skip('Triton does not compile while it interprets')
    failures = [row for row in aot.build_all(jobs) if 'FAIL' in row['verdict']]
    assert not failures, '\n'.join(str(row) for row in failures)


@pytest.mark.parametrize(
    ('target', 'dtypes'), [('sm_90', aot.DTYPES), ('sm_80', [torch.bfloat16])], ids=['sm_90', 'sm_80']
)
@pytest.mark.parametrize('model', MAIN)
def test_main_shapes_compile_within_limits(model, target, dtypes):
    jobs = [job for job in aot.jobs([model], dtypes, [target]) if str(job.layer) in MAIN[model]]
    assert {str(job.layer) for job in jobs} == set(MAIN[model])
    check(jobs)


@pytest.mark.slow
@pytest.mark.parametrize('target', aot.GPUS)
@pytest.mark.parametrize('model', workloads.MODELS)
def test_all_shapes_compile_within_limits(model, target):
    check(aot.jobs([model], aot.DTYPES, [target]))


@pytest.mark.parametrize('layer', [same(4, 7, 3), Shift(4, (7, 7), 5, 3, 4)], ids=str)
def test_plans_cover_every_pass_and_need_no_memory(layer):
    pytest.importorskip('triton')
    planned = aot.plans(layer, torch.float32, batch=2**20)
    assert {name.split()[0] for name in planned} - {'deploy'} == {'forward', 'input_grad', 'weight_grad'}
    tensors = [x for plan in planned.values() for x in plan.launch.arguments.values() if isinstance(x, torch.Tensor)]
    assert {tensor.device.type for tensor in tensors} == {'meta'}
