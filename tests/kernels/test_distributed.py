"""Two processes with half the batch each have the gradients of one with all of it."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name('distributed_run.py')
RUN = runpy.run_path(str(SCRIPT))
WORLD_SIZE = 2


@pytest.fixture(scope='module')
def gradients(tmp_path_factory):
    """Gradients of every variant, from each process."""
    folder = tmp_path_factory.mktemp('distributed')
    processes = [
        subprocess.Popen(
            [sys.executable, SCRIPT, str(rank), str(WORLD_SIZE), folder],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(WORLD_SIZE)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * WORLD_SIZE, '\n'.join(errors)
    return [torch.load(folder / f'{rank}.pt', weights_only=True) for rank in range(WORLD_SIZE)]


@pytest.mark.parametrize('variant', RUN['VARIANTS'])
def test_gradients_equal_those_of_one_process(variant, gradients):
    expected = RUN['step'](variant)
    assert all(gradient is None or gradient.norm() > 0.1 for gradient in expected.values())
    for process in gradients:
        torch.testing.assert_close(process[variant], expected, rtol=1e-4, atol=1e-5)
