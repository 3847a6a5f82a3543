"""The CPU kernels of ``_native.cpp``, compiled when they are first needed.

That takes a C++ compiler, GCC or Clang, and some seconds, once: the result is kept in the user's cache directory, for
each version of the source and each set of vector instructions. Without a compiler there are the other backends.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from ._cache import cache_folder

_SOURCE = Path(__file__).with_suffix('.cpp')
_COMPILERS = ('c++', 'g++', 'clang++')
_FLAGS = ('-std=c++17', '-O3', '-ffp-contract=fast', '-fno-math-errno', '-fPIC', '-shared', '-pthread')
# As PyTorch compiles its own kernels; what it finds in the processor decides here too.
_VECTORS = {
    'AVX512': ('-mavx512f', '-mavx512bw', '-mavx512dq', '-mavx512vl', '-mavx2', '-mfma'),
    'AVX2': ('-mavx2', '-mfma', '-mf16c'),
}
_SECONDS = 300


def unusable() -> str | None:
    """Say why there are no such kernels in this process, or None if there are; they are compiled if need be."""
    return _failure()


# What torch.compiler.assume_constant_result does, without the second that it takes to import PyTorch's compiler.
unusable._dynamo_marked_constant = True


@cache
def _failure() -> str | None:
    try:
        library()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return str(error)
    return None


@cache
def library() -> ctypes.CDLL:
    """Load the kernels.

    Raises:
        OSError: If there is no compiler, or it cannot compile them.
        ValueError: If the environment variable ``CXX`` is no command.
        subprocess.SubprocessError: If it takes too long.
    """
    vectors = next(
        (flags for name, flags in _VECTORS.items() if torch.backends.cpu.get_cpu_capability().startswith(name)), ()
    )
    flags = *_FLAGS, *vectors
    origin = platform.machine(), *platform.libc_ver(), *flags
    key = hashlib.sha256(b'\0'.join((_SOURCE.read_bytes(), *map(str.encode, origin)))).hexdigest()
    try:
        binary = cache_folder('native') / f'{key}.so'
    except RuntimeError:  # there is no home
        binary = None
    try:
        library = ctypes.CDLL(str(binary))
    except OSError:  # not yet made, or not for this system
        library = _compile(flags, binary)
    for function in library.sw_mm_convolve, library.sw_mm_weight_grads:
        function.argtypes = [ctypes.c_void_p] * 3 + [ctypes.c_int64]
    return library


def _compile(flags: Sequence[str], binary: Path | None) -> ctypes.CDLL:
    """Compile the kernels, load them, and keep them under a path, if that can be written to."""
    named = (os.environ.get('CXX') or '').strip()
    commands = [shlex.split(named)] if named else [[name] for name in _COMPILERS]
    command = next((command for command in commands if shutil.which(command[0])), None)
    if command is None:
        tried = (
            f'CXX names {named!r}, which is not found' if named else f'none of {", ".join(_COMPILERS)} is on the PATH'
        )
        raise FileNotFoundError(f'there is no C++ compiler to make them: {tried}; install one, or set CXX to it')
    logging.getLogger(__name__).info('compiling the CPU kernels with %s, once', command[0])
    with _folder_beside(binary) as folder:
        made = Path(folder) / 'kernels.so'
        result = subprocess.run(
            [*command, *flags, str(_SOURCE), '-o', str(made)],
            capture_output=True,
            text=True,
            errors='replace',
            timeout=_SECONDS,
            check=False,
        )
        if result.returncode:
            raise OSError(f'{command[0]} cannot compile them: {result.stderr.strip()[-500:]}')
        library = ctypes.CDLL(str(made))
        if binary is not None and made.parents[1] == binary.parent:
            made.replace(binary)  # at once, so that processes that start together do not meet half a file
    return library


def _folder_beside(binary: Path | None) -> tempfile.TemporaryDirectory:
    try:
        if binary is not None:
            binary.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=binary.parent)
    except OSError:  # nothing can be kept here
        pass
    return tempfile.TemporaryDirectory()


@cache
def openmp() -> int | None:
    """Address of the function that starts the threads of PyTorch's own OpenMP library, if it has one."""
    try:
        torch_cpu = ctypes.CDLL(str(next((Path(torch.__file__).parent / 'lib').glob('libtorch_cpu.*'))))
        return ctypes.cast(torch_cpu.GOMP_parallel, ctypes.c_void_p).value
    except (StopIteration, OSError, AttributeError):
        return None
