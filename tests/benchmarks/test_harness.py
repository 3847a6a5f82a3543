"""The gate before the clock, the clock, the tables; and the command lines on one small layer."""

import sys

import pytest
import torch
from torch.nn import functional as F

from benchmarks import depthwise, gpu, harness, peers, shift
from benchmarks.workloads import Depthwise, same


def test_passes_compute_what_their_names_say():
    x, weight = torch.randn(2, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    runs = harness.passes(lambda x, w: (x * w, (x * w).sum(1)), x, weight)
    (product, total), (dx,), (dw,) = (runs[name]() for name in harness.PASSES)
    assert not product.requires_grad
    torch.testing.assert_close((product, total), (x * weight, x @ weight))
    # d(out)/dx = w and d(out)/dw = x, so both gradients hold the same sum over the outputs' gradients.
    torch.testing.assert_close((dx / weight * x).sum(0), dw)


def test_passes_keep_the_layout():
    x = torch.randn(1, 2, 4, 4)
    seen = []

    def operator(x, weight):
        seen.append(x.is_contiguous(memory_format=torch.channels_last))
        return x * weight

    made = harness.in_both_layouts({'double': operator}, x, torch.ones(2, 1, 1))
    assert list(made) == ['double contiguous', 'double channels_last']
    made['double contiguous']['forward'](), made['double channels_last']['forward']()
    assert seen[-2:] == [False, True]


def test_the_gate_lets_only_the_right_pass(capsys):
    right = (torch.ones(4), torch.full((2,), 100.0))
    runs = {
        'sw_mm': lambda: (right[0] + 5e-6, right[1]),
        'inexact': lambda: (right[0] + 2e-5, right[1]),
        'not a number': lambda: (right[0] * float('nan'), right[1]),
    }
    assert harness.right_ones(runs, right, torch.float32) == {'sw_mm': runs['sw_mm']}
    assert 'inexact is wrong: relative error 2.0e-05' in capsys.readouterr().err
    for wrong in ('inexact', 'not a number'):
        with pytest.raises(RuntimeError, match='sw_mm channels_last is wrong'):
            harness.right_ones({'sw_mm channels_last': runs[wrong]}, right, torch.float32)


def test_times_are_the_shortest_of_several_runs():
    calls = []
    waits = iter([0, 4, 2])  # units of work: the first run warms up

    def work():
        calls.append(sum(range(100_000 * next(waits))))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times = harness.cpu_times({'work': work, 'nothing': lambda: None}, seconds=0)
    finally:
        torch.set_num_threads(threads)
    assert len(calls) == 3
    assert 0 <= times['nothing'] < times['work']


def test_tables_come_back(tmp_path):
    rows = [{'layer': 'a, b', 'ms': '1.5'}, {'layer': 'c', 'ms': ''}]
    path = tmp_path / 'new' / 'table.csv'
    harness.write_csv(path, rows, {'cpu': 'one', 'commit': 'two'})
    assert path.read_text().startswith('# cpu: one\n# commit: two\nlayer,ms\n"a, b",1.5\n')
    assert harness.read_csv(path) == rows


def test_environment_names_what_a_reader_needs():
    about = harness.environment()
    assert about['threads'] == str(torch.get_num_threads())
    assert f'torch {torch.__version__.split("+")[0]}' in about['versions']
    assert about['commit']


LAYERS = [
    same(3, 8, 3),
    same(2, 6, (4, 9)),
    same(2, 9, 3, dilation=3),
    Depthwise(2, (6, 9), (3, 5), (4, 1, 0, 2)),
    Depthwise(2, (7, 6), (2, 3), (0, 0, 0, 0), dilation=2),
    Depthwise(2, (7, 10), (3, 2), (1, 0, 2, 1), stride=3),
]


@pytest.mark.parametrize('layer', LAYERS, ids=str)
def test_peers_convolve(layer):
    x = torch.randn(2, layer.channels, *layer.size, dtype=torch.float64)
    weight = torch.randn(layer.channels, 1, *layer.kernel_size, dtype=torch.float64)
    expected = F.conv2d(F.pad(x, layer.padding), weight, None, layer.stride, 0, layer.dilation, layer.channels)
    torch.testing.assert_close(peers.native(layer)(x, weight), expected)
    torch.testing.assert_close(peers.fft(layer)(x, weight), expected)
    for engine in peers.engines(layer, weight.float()).values():
        torch.testing.assert_close(engine(x.float()), expected.float())


@pytest.mark.parametrize(('length', 'fast'), [(1, 1), (7, 8), (27, 27), (86, 90), (97, 100)])
def test_lengths_that_transform_quickly(length, fast):
    assert peers._fast_length(length) == fast


def run(module, monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['benchmark', *words, '--threads', str(torch.get_num_threads())])
    module.main()


def test_depthwise_writes_its_table_and_pictures(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'quick.csv'
    run(depthwise, monkeypatch, '--only', '512x7x7 k7x7|128x7x7', '--seconds', '0', '--out', str(out))
    rows = harness.read_csv(out)
    assert {row['pass'] for row in rows} == set(harness.PASSES)
    assert {row['layer'] for row in rows} == {'512x7x7 k7x7', '128x7x7 k13x13'}
    assert {'sw_mm contiguous', 'F.conv2d channels_last', 'FFT'} <= {row['implementation'] for row in rows}
    for name in harness.PASSES:
        plain = [
            row
            for row in rows
            if row['pass'] == name and row['layer'][0] == '5' and 'F.conv2d' in row['implementation']
        ]
        assert max(float(row['speedup']) for row in plain) == 1
    assert (tmp_path / 'quick_grid.png').stat().st_size > 1000
    assert (tmp_path / 'quick_growth.png').stat().st_size > 1000
    assert 'sw_mm channels_last' in capsys.readouterr().out


def test_shift_writes_its_table_and_pictures(tmp_path, monkeypatch):
    out = tmp_path / 'quick.csv'
    run(shift, monkeypatch, '--only', '7x7', '--batch', '1', '--seconds', '0', '--out', str(out))
    seen = {(row['form'], row['pass']) for row in harness.read_csv(out)}
    assert seen == {*(('training', name) for name in harness.PASSES), ('deploy', 'forward')}
    assert (tmp_path / 'quick_training.png').exists()
    assert (tmp_path / 'quick_deploy.png').exists()


def test_a_pattern_without_match_is_told(monkeypatch):
    with pytest.raises(SystemExit, match='no layer matches'):
        run(shift, monkeypatch, '--only', 'nonsense')


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_gpu_benchmark_asks_for_a_gpu(monkeypatch, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(gpu, monkeypatch)
    assert stopped.value.code == 1
    assert 'needs a CUDA device' in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_gpu_benchmark_measures_the_models(tmp_path, monkeypatch):
    out = tmp_path / 'gpu.csv'
    words = ('--model', 'SW-T', 'SLaK-T', '--only', '7x7', '--batch', '2', '--seconds', '0', '--out', str(out))
    run(gpu, monkeypatch, *words)
    assert {row['model'] for row in harness.read_csv(out)} == {'SW-T', 'SLaK-T'}
