"""The Triton kernels are tested by Triton's interpreter, which must be chosen before Triton is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1] / 'interpreter'


def test_triton_kernels_in_the_interpreter(request: pytest.FixtureRequest):
    pytest.importorskip('triton')
    selection = request.config.getoption('markexpr')
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-m', selection, TESTS]
    environment = {**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'}
    run = subprocess.run(command, cwd=TESTS.parents[1], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
