"""Make the virtual environment of a checkout from a lock file.

Run by ``make setup`` with whatever Python the machine has, so only the standard library is used. pip's own
configuration (index, proxies, certificates) is left to pip. The environment is marked complete by a stamp that
holds the lock's hash: a second run does nothing, a changed lock makes the environment anew, and a run that
failed leaves no environment behind.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
STAMP = 'sw_mm-environment.json'
OLDEST_PYTHON = (3, 10)
DISK_NEEDED = 9 * 2**30  # the environment itself is 6.1 GiB with torch's CUDA libraries, the rest is pip's unpacking
# torch's own requirement, wanted only by its CUDA builds: pip decides from the metadata of the build it picked.
TORCH_ONLY = re.compile(r'(nvidia|cuda)-')
# Published as source distributions only. pip builds each in an environment of its own, as onedl-mmcv needs it: where it
# finds no torch it leaves its operators out, which do not compile for the torch of the lock.
FROM_SOURCE = re.compile(r'onedl-(?!mmengine)')


class SetupError(RuntimeError):
    """A failure that the user can mend; its text is the one line shown."""


def lock_lines(lock: Path) -> list[str]:
    lines = (line.strip() for line in lock.read_text().splitlines())
    return [line for line in lines if line and not line.startswith('#')]


def fingerprint(lock: Path, version: Sequence[int] = sys.version_info) -> str:
    """Hash of all that decides what is installed: the lock, this script, and the Python."""
    digest = hashlib.sha256(f'python {version[0]}.{version[1]}\n'.encode())
    for path in (lock, Path(__file__)):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def install_key(checkout: Path) -> str:
    """What the editable install depends on: where the sources are, and their metadata (entry points, packages)."""
    digest = hashlib.sha256()
    for name in ('pyproject.toml', 'setup.py'):
        digest.update((checkout / name).read_bytes())
    return f'{checkout} {digest.hexdigest()}'


def read_stamp(venv: Path) -> dict[str, str]:
    try:
        return json.loads((venv / STAMP).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return {}


def write_stamp(venv: Path, **content: str) -> None:
    fresh = venv / (STAMP + '.new')
    fresh.write_text(json.dumps(content, indent=1) + '\n')
    fresh.replace(venv / STAMP)


def check_machine(venv: Path, needed: int = DISK_NEEDED) -> None:
    if sys.version_info < OLDEST_PYTHON:
        found = '.'.join(map(str, sys.version_info[:3]))
        raise SetupError(
            f'Python {found} is too old, 3.10 or newer is needed: name another, as in `make setup PYTHON=python3.11`'
        )
    missing = [name for name in ('venv', 'ensurepip') if importlib.util.find_spec(name) is None]
    if missing:
        raise SetupError(
            f'this Python has no {" and no ".join(missing)}: install it (Debian, Ubuntu: apt-get install python3-venv) '
            'or name another Python, as in `make setup PYTHON=python3.11`'
        )
    parent = next(folder for folder in venv.parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < needed:
        raise SetupError(
            f'{parent} has {free / 2**30:.1f} GiB free and the environment needs {needed / 2**30:.0f}: '
            'free some, or set SW_MM_VENV to a folder on a larger disk'
        )


def explain(log: Iterable[str], doing: str, log_file: Path) -> SetupError:
    """Turn pip's last words into one line that names the remedy."""
    text = '\n'.join(log)
    if 'No space left on device' in text or 'Errno 28' in text:
        return SetupError(
            f'the disk filled up while {doing}: free some space (TMPDIR, which pip unpacks in, counts too) '
            'or set SW_MM_VENV to a folder on a larger disk, then run `make setup` again'
        )
    errors = [line.removeprefix('ERROR: ').strip() for line in text.splitlines() if line.startswith('ERROR: ')]
    reason = (errors or [line for line in text.splitlines() if line.strip()] or ['no message'])[-1]
    if 'No matching distribution' in text or re.search(r'connection|timed out|resolve host|Max retries', text, re.I):
        remedy = 'check the network and the index that `pip config list` shows, then run `make setup` again'
    else:
        remedy = f'the whole log is {log_file}'
    return SetupError(f'{doing} failed: {reason} ({remedy})')


def run_pip(python: Path, arguments: Sequence[str], doing: str, log_file: Path, total: int = 0) -> None:
    """Run pip, showing one line for each package it takes up; its whole output goes to ``log_file``."""
    command = [str(python), '-m', 'pip', '--disable-pip-version-check', 'install', '--progress-bar', 'off', *arguments]
    tail: list[str] = []
    count = 0
    environment = {**os.environ, 'PYTHONUNBUFFERED': '1'}
    with (
        log_file.open('a') as log,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process,
    ):
        for line in process.stdout:
            log.write(line)
            tail = [*tail[-60:], line.rstrip()]
            if line.startswith('Collecting '):
                count += 1
                print(f'  [{count:3d}{f"/{total}" if total else ""}] {line.split()[1]}', flush=True)
            elif line.lstrip().startswith('Downloading ') and ('MB)' in line or 'GB)' in line):
                print(f'            {line.strip()}', flush=True)
            elif line.startswith('Installing collected'):
                print('  unpacking', flush=True)
    if process.returncode:
        raise explain(tail, doing, log_file)


def install(venv: Path, lock: Path, log_file: Path) -> None:
    print(f'making {venv}', flush=True)
    # `make` may have been called from inside the very environment that is to be replaced.
    base_python = getattr(sys, '_base_executable', sys.executable)
    made = subprocess.run([base_python, '-m', 'venv', '--clear', str(venv)], capture_output=True, text=True)
    if made.returncode:
        raise explain((made.stdout + made.stderr).splitlines(), 'making the virtual environment', log_file)
    write_stamp(venv, state='unfinished')
    python = venv / 'bin' / 'python'
    lines = lock_lines(lock)
    first = [line for line in lines if re.match(r'(pip|setuptools|wheel)==', line)]
    run_pip(python, first, 'installing pip', log_file)
    print("installing torch (with its CUDA libraries where pip's index offers the CUDA build)", flush=True)
    run_pip(python, ['--only-binary=:all:', '-c', str(lock), 'torch', 'torchvision'], 'installing torch', log_file)
    print('installing the OpenMMLab stack', flush=True)
    sources = [f'--no-binary={line.partition("==")[0]}' for line in lines if FROM_SOURCE.match(line)]
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as rest:
        # The lock is complete, and some of the libraries' own pins are wrong (overrides.txt): hence no dependencies.
        rest.write('\n'.join(line for line in lines if not TORCH_ONLY.match(line)))
        rest.flush()
        run_pip(
            python, ['--only-binary=:all:', *sources, '--no-deps', '-r', rest.name], 'installing the lock', log_file
        )


def make_environment(venv: Path, lock: Path, checkout: Path = CHECKOUT) -> None:
    """Bring ``venv`` to the state that ``lock`` describes, with ``checkout`` installed in it as editable."""
    wanted = fingerprint(lock)
    sources = install_key(checkout)
    stamp = read_stamp(venv)
    if venv.exists() and not stamp and any(venv.iterdir()):
        raise SetupError(
            f'{venv} exists and was not made by `make setup`: remove it, or set SW_MM_VENV to another folder'
        )
    if stamp.get('lock') == wanted and stamp.get('sources') == sources:
        return
    handle, name = tempfile.mkstemp(prefix='sw_mm-setup-', suffix='.log')
    os.close(handle)
    log_file = Path(name)
    if stamp.get('lock') != wanted:
        check_machine(venv)
        try:
            install(venv, lock, log_file)
        except BaseException:
            shutil.rmtree(venv, ignore_errors=True)
            raise
    # Another checkout may share the environment: only the link to the sources changes then.
    run_pip(
        venv / 'bin' / 'python',
        ['--no-deps', '--no-build-isolation', '--editable', str(checkout)],
        'installing sw_mm',
        log_file,
    )
    write_stamp(venv, lock=wanted, sources=sources)
    log_file.unlink()
    print(f'environment ready: {venv}', flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, required=True)
    parser.add_argument('--stack', default='openmmlab', help='lock file to install: requirements/STACK.txt')
    args = parser.parse_args()
    lock = CHECKOUT / 'requirements' / f'{args.stack}.txt'
    try:
        if not lock.is_file():
            raise SetupError(f'no lock file {lock}: pass --stack openmmlab or --stack onedl')
        make_environment(args.venv.absolute(), lock)
    except SetupError as error:
        print(f'make setup: {error}', file=sys.stderr)
        return 1
    except OSError as error:
        print(f'make setup: {error.strerror or error} ({error.filename or args.venv})', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('make setup: interrupted', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    sys.exit(main())
