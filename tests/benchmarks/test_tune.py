"""The tuner without a device: its estimate by hand, its candidates, and the table that it writes."""

import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip('triton')

from benchmarks import aot, harness, sass, tune, workloads
from benchmarks.workloads import Shift, same
from sw_mm.kernels import _tuned
from sw_mm.kernels._tuned import Config, Key

GPU = aot.Gpu('small', 90, multiprocessors=2, clock=1e9, fma=4, bandwidth=1e12)
LAYER = same(512, 14, 27)
KEY = Key('forward', 512, (14, 14), (27, 27), (1, 1), (1, 1), torch.float32)


def code(registers, instructions=200, fma=100, load_bytes=50, stack=0):
    loops = [sass.Mix(instructions, fma, 0, load_bytes)]
    return aot.Code(sass.Resources(registers, stack, 0, 0), loops)


def launched(programs, warps, macs, data=0):
    launch = SimpleNamespace(grid=(programs,), num_warps=warps, constants={'C': 128, 'BLOCK': 128})
    return aot.Plan(launch, macs, data)


@pytest.mark.parametrize(
    ('programs', 'warps', 'registers', 'expected'),
    [
        # Each warp goes 10 rounds of 200 cycles; alone on its scheduler it also waits 300 cycles for its loads.
        (2, 4, 128, 10 * 500),
        # Four programs a multiprocessor: four warps a scheduler hide the wait.
        (8, 4, 128, 10 * 800),
        # A fifth one does not fit and comes afterwards, alone.
        (10, 4, 128, 10 * (800 + 500)),
        # With 104 registers it does not fit either, with 96 it does.
        (10, 4, 104, 10 * (800 + 500)),
        (10, 4, 96, 10 * 1000),
        # One multiprocessor is left with three programs of one warp: the busiest scheduler has one of them.
        (5, 1, 40, 10 * 500),
    ],
)
def test_estimate_by_hand(programs, warps, registers, expected):
    plan = launched(programs, warps, macs=programs * warps * 32 * 100 * 10)
    assert tune.estimate(plan, code(registers), GPU) == pytest.approx(expected / GPU.clock)


def test_estimate_knows_each_limit():
    plan = launched(8, 4, macs=8 * 4 * 32 * 100 * 10, data=int(1e9))
    assert tune.estimate(plan, code(128), GPU) == pytest.approx(1e-3)
    plan = launched(8, 4, macs=plan.macs)
    assert tune.estimate(plan, code(128, load_bytes=400), GPU) == pytest.approx(10 * 1600 / GPU.clock)
    slow = aot.Gpu('slow', 80, 2, GPU.clock, fma=1, bandwidth=1e12)
    assert tune.estimate(plan, code(128), slow) == pytest.approx(10 * 1600 / GPU.clock)


def test_candidates_are_few_and_near():
    def of(layer, kernel, registers, **options):
        return tune.candidates(aot.plans(layer, torch.float32)[kernel].launch, registers, **options)

    assert of(LAYER, 'forward', 90) == [Config(warps=4), Config(tile=7)]
    assert of(LAYER, 'forward', 78) == [Config(warps=4), Config(warps=1, registers=128), Config(tile=7)]
    assert of(LAYER, 'forward', 40) == [Config(warps=4), Config(warps=1), Config(tile=7)]
    assert Config(block=64, warps=1) in of(LAYER, 'forward', 78, blocks=True)
    assert Config(column_tile=19) in of(Shift(60, (56, 56), 51, 3, 4), 'forward', 128)
    for model in workloads.MODELS.values():
        for layer in model():
            for plan in aot.plans(layer, torch.bfloat16).values():
                assert len(tune.candidates(plan.launch, 40, blocks=True)) <= 6


@pytest.fixture
def static(monkeypatch, tmp_path):
    """Runs the tuner on one layer; the code of a kernel is what the test says, by its warps."""
    monkeypatch.setattr(workloads, 'MODELS', {'SW-T': lambda: {LAYER: 1}})
    monkeypatch.setattr(aot, 'compile_launch', lambda launch, target: launch)
    monkeypatch.setattr(harness, 'environment', lambda: {'commit': 'abc'})
    path = tmp_path / 'table.csv'

    def run(codes, *arguments):
        monkeypatch.setattr(aot, 'inspect', lambda launch: codes.get(launch.num_warps, codes[2]))
        command = ['tune', '--static', 'sm_90', '--dtype', 'float32', '--only', 'forward', '--out', str(path)]
        monkeypatch.setattr(sys, 'argv', [*command, *arguments])
        tune.main()
        return _tuned.read(path) if path.exists() else {}

    run.path = path
    return run


RULES = code(80, instructions=500, fma=392)


def test_the_best_estimate_is_written_if_the_gain_is_clear(static):
    assert static({2: RULES, 4: code(40, instructions=220, fma=196)}) == {KEY: Config(warps=4)}
    head, _, entries = static.path.read_text().partition('kernel,')
    assert '# commit: abc' in head
    assert 'nothing was timed' in head
    rules, best = map(float, entries.split(',')[-2:])
    assert 0.8 < best / rules < 0.95


@pytest.mark.parametrize(
    'other',
    [
        code(40, instructions=245, fma=196),  # 2 % are no clear gain
        code(40, instructions=220, fma=196, stack=8),
        code(130, instructions=220, fma=196),
        code(40, instructions=262, fma=196),  # fewer multiply-adds than the gate allows
    ],
    ids=['no gain', 'spill', 'registers', 'share'],
)
def test_what_breaks_a_limit_or_gains_little_is_left_out(other, static):
    assert static({2: RULES, 4: other}) == {}


def test_other_entries_are_kept_and_worse_ones_replaced(static):
    cells = _tuned.cells(KEY._replace(channels=8), Config(warps=1)) | {'rules_us': 2, 'us': 1}
    harness.write_csv(static.path, [cells, _tuned.cells(KEY, Config(tile=7)) | {'rules_us': 2, 'us': 1}], {})
    table = static({2: RULES, 4: code(40, instructions=220, fma=196)})
    assert table == {KEY._replace(channels=8): Config(warps=1), KEY: Config(warps=4)}
    assert KEY not in static({2: RULES, 4: RULES})


def test_without_a_device_it_says_what_does_without(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    monkeypatch.setattr(sys, 'argv', ['tune'])
    with pytest.raises(SystemExit):
        tune.main()
    assert '--static does without' in capsys.readouterr().err


@pytest.mark.parametrize('target', aot.GPUS)
def test_shipped_tables_are_of_the_models_and_say_that_nothing_was_timed(target):
    path = _tuned.SHIPPED / f'{target}.csv'
    assert 'nothing was timed' in path.read_text().partition('kernel,')[0]
    plans = (aot.plans(layer, dtype) for net in workloads.MODELS.values() for layer in net() for dtype in aot.DTYPES)
    known = {plan.launch.key: plan.launch for by_name in plans for plan in by_name.values()}
    for key, config in _tuned.read(path).items():
        tuned = tune.candidates(known[key], registers=40) + tune.candidates(known[key], registers=80)
        assert config in tuned, key
    for row in harness.read_csv(path):
        assert float(row['us']) < 0.96 * float(row['rules_us']), row


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_card_times_and_writes_what_it_takes(monkeypatch, tmp_path):
    path = tmp_path / 'table.csv'
    monkeypatch.setattr(workloads, 'MODELS', {'SW-T': lambda: {LAYER: 1}})
    command = ['tune', '--dtype', 'float32', '--only', 'forward', '--seconds', '0.01', '--margin', '-9']
    monkeypatch.setattr(sys, 'argv', [*command, '--out', str(path)])
    tune.main()
    assert set(_tuned.read(path)) == {KEY}
    assert 'median times' in path.read_text()
