"""Read checkpoints with torch's guard against foreign pickles on.

A pickle can run any code while it is read, and torch>=2.6 therefore refuses every type it does not know, among them
those that mmengine writes into its own checkpoints. Here just these types are allowed, each in a form that can do
nothing but hold data, and mmengine's loaders go through ``safe_load``, for local files and for URLs (which torch itself
still reads unguarded).

Config text in a checkpoint is code too. mmengine runs the text in ``meta['config']`` when it resumes, and an inferencer
that is given nothing but weights builds whatever the text in them names. So the text is dropped on reading unless it is
plain data, and such an inferencer asks for the config file instead.

All of this is lifted for the files that ``SW_MM_TRUSTED_CHECKPOINTS`` names (paths, separated as in ``PATH``): reading
them may run code that they contain. The guard itself is never turned off as a whole.
"""

import ast
import functools
import os
import pickle
import re
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlparse

from sw_mm.compat._after_import import after_import

TRUST_VARIABLE = 'SW_MM_TRUSTED_CHECKPOINTS'

# Where the libraries, now or in earlier versions, keep the text of the config that a checkpoint was trained with.
CONFIG_TEXTS = (('meta', 'config'), ('meta', 'cfg'), ('message_hub', 'runtime_info', 'cfg'))
KNOWN_PACKAGES = {'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'sw_mm'}
# Errors of torch about the device or the memory that a file is loaded into.
NOT_THE_FILE = re.compile('CUDA|device|data location|out of memory|alloc_cpu')


class UntrustedCheckpointError(ValueError):
    """The file holds more than data, and nobody said that it can be trusted."""


def safe_load(path: str | os.PathLike, map_location: Any = 'cpu') -> Any:
    """Load what ``torch.save`` wrote, without running any code from the file.

    Args:
        path: A local file.
        map_location: As in ``torch.load``.

    Returns:
        The stored object. Config texts that are more than plain data are left out, with a warning.

    Raises:
        FileNotFoundError: There is no such file.
        UntrustedCheckpointError: The file holds objects of types that are not allowed. A ValueError.
        ValueError: The file is damaged or no checkpoint.
    """
    import torch

    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint at {path}' + (': it is a directory' if path.is_dir() else ''))
    _allow_known_types()
    if is_trusted(path):
        return torch.load(path, map_location=map_location, weights_only=False)
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (PermissionError, MemoryError):
        raise
    except Exception as error:  # an unpickler may raise nearly anything
        if refused := _refused_names(path, str(error)):
            raise UntrustedCheckpointError(_refusal(path, refused)) from None
        if isinstance(error, RuntimeError) and NOT_THE_FILE.search(str(error)):
            raise
        raise ValueError(_damage(path, error)) from error
    return _without_code(checkpoint, path)


def is_trusted(path: str | os.PathLike) -> bool:
    """Return whether ``SW_MM_TRUSTED_CHECKPOINTS`` names this file."""
    names = filter(None, os.environ.get(TRUST_VARIABLE, '').split(os.pathsep))
    return os.path.realpath(path) in {os.path.realpath(os.path.expanduser(name)) for name in names}


def install() -> None:
    """Have mmengine read its checkpoints through ``safe_load``."""
    after_import('mmengine.runner.checkpoint', _guard_loaders)
    after_import('mmengine.infer.infer', _guard_inferencer)


@functools.cache
def _allow_known_types() -> None:
    import numpy as np
    import torch

    from_numpy = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    allowed = [np.ndarray, np.dtype, Namespace]
    # The module was renamed in NumPy 2; files of either age load with either.
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        allowed += [_named(function, module, function.__name__) for function in from_numpy]
    allowed += {type(np.dtype(code)) for code in np.typecodes['All'] if code not in 'OV'}
    if find_spec('mmengine') is not None:
        allowed += _history_buffer_types()
    torch.serialization.add_safe_globals(allowed)


def _history_buffer_types() -> list[Callable]:
    """Return stand-ins for the two globals in a pickled HistoryBuffer.

    It refers to its own methods by ``getattr``, and its ``__setstate__`` writes into a table that all buffers share.
    With the real ``getattr`` a pickle could reach anything, so the stand-in knows this one class, and the table is left
    alone.
    """
    from mmengine.logging import HistoryBuffer

    class InertHistoryBuffer(HistoryBuffer):
        def __setstate__(self, state: dict) -> None:
            state.pop('statistics_methods', None)
            self.__dict__.update(state)
            self.__class__ = HistoryBuffer

    def get_statistic(owner: type, name: str) -> Any:
        if owner is not InertHistoryBuffer or name.startswith('_'):
            raise pickle.UnpicklingError('Unsupported global: GLOBAL builtins.getattr')
        return name

    return [
        _named(InertHistoryBuffer, HistoryBuffer.__module__, HistoryBuffer.__name__),
        _named(get_statistic, 'builtins', 'getattr'),
    ]


def _named(item: Callable, module: str, name: str) -> Callable:
    """Return ``item`` as torch's allow-list will know it: under the given name."""
    if not isinstance(item, type):
        function = item

        def item(*args):
            return function(*args)

    item.__module__, item.__name__, item.__qualname__ = module, name, name
    return item


def _without_code(checkpoint: Any, path: Path) -> Any:
    for *parents, key in CONFIG_TEXTS:
        holder = checkpoint
        for parent in parents:
            holder = holder.get(parent) if isinstance(holder, dict) else None
        if isinstance(holder, dict) and key in holder and not is_plain_config(holder[key]):
            del holder[key]
            place = '/'.join((*parents, key))
            warnings.warn(
                f'the config text in {path} ({place}) is more than plain data and was left out: running it could do '
                f'anything. If you trust the file, set {TRUST_VARIABLE}={path}',
                stacklevel=3,
            )
    return checkpoint


def is_plain_config(text: Any) -> bool:
    """Return whether running ``text`` as an mmengine config does nothing but assign literal values.

    Inheritance, template fields and imports of modules that are not in use yet count as code.
    """
    if not isinstance(text, str) or '{{' in text:
        return False
    try:
        statements = ast.parse(text).body
        return all(isinstance(statement, ast.Assign) and _is_plain_assignment(statement) for statement in statements)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def _is_plain_assignment(statement: ast.Assign) -> bool:
    if len(statement.targets) != 1 or not isinstance(statement.targets[0], ast.Name):
        return False
    name = statement.targets[0].id
    if name == '_base_' or not _is_plain(statement.value):
        return False
    return name != 'custom_imports' or _imports_known_modules(statement.value)


def _is_plain(node: ast.expr) -> bool:
    match node:
        case ast.Constant():
            return True
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant()):
            return True
        case ast.Tuple(elts=items) | ast.List(elts=items) | ast.Set(elts=items):
            return all(map(_is_plain, items))
        case ast.Dict(keys=keys, values=values):
            return None not in keys and all(map(_is_plain, [*keys, *values]))
        case ast.Call(func=ast.Name(id='dict'), args=[] | [ast.Dict()] as args, keywords=keywords):
            return all(map(_is_plain, args)) and all(item.arg and _is_plain(item.value) for item in keywords)
    return False


def _imports_known_modules(node: ast.expr) -> bool:
    strings = {item.value for item in ast.walk(node) if isinstance(item, ast.Constant) and isinstance(item.value, str)}
    names = strings - {'imports', 'allow_failed_imports'}
    return all(name in sys.modules or name.split('.')[0] in KNOWN_PACKAGES for name in names)


def _guard_loaders(checkpoint: ModuleType) -> None:
    def load_from_local(filename: str, map_location: Any = None) -> Any:
        return safe_load(filename, map_location)

    def load_url(url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True) -> Any:
        return safe_load(_download(url, model_dir, progress), map_location)

    checkpoint.load_from_local = load_from_local
    checkpoint.CheckpointLoader.register_scheme(prefixes='', loader=load_from_local, force=True)
    checkpoint.load_url = load_url  # the loaders of every URL scheme call it
    _allow_known_types()  # for code that calls torch.load itself


def _download(url: str, model_dir: str | None, progress: bool) -> Path:
    """Fetch a file into torch's cache, unless it is there."""
    from torch import hub

    folder = Path(model_dir or Path(hub.get_dir(), 'checkpoints'))
    path = folder / Path(urlparse(url).path).name
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        hub.download_url_to_file(url, str(path), progress=progress)
    return path


def _guard_inferencer(infer: ModuleType) -> None:
    init_model = infer.BaseInferencer._init_model

    @functools.wraps(init_model)
    def guarded(self, cfg, weights, device='cpu'):
        if not cfg and weights is not None and not is_trusted(weights):
            raise UntrustedCheckpointError(
                f'model: pass the config file as well. Building the model from the config text inside {weights} could '
                f'run anything that this text names; if you trust the file, set {TRUST_VARIABLE}={weights}'
            )
        return init_model(self, cfg, weights, device)

    infer.BaseInferencer._init_model = guarded


def _refused_names(path: Path, message: str) -> list[str]:
    """Return the names of the types that torch refused: all where it can list them, else the first it met."""
    import torch

    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # an older torch, the format of torch<1.6, or a pickle made to break the scan
        names = []
    first = re.findall(r'GLOBAL (\S+)|reduce for unrecognized function (.+)|but got (<class .+>)', message)
    return sorted(names) or [''.join(groups) for groups in first]


def _refusal(path: Path, names: list[str]) -> str:
    return (
        f'{path} was not loaded: it holds {", ".join(names)}, which a checkpoint does not need and which could run '
        'code. If you know the class and it is harmless, call torch.serialization.add_safe_globals([TheClass]) before '
        f'loading. If you trust the whole file, set {TRUST_VARIABLE}={path}; better, load it once that way and save '
        'its state_dict alone'
    )


def _damage(path: Path, error: Exception) -> str:
    # The first sentence, if it is one. What follows, and all of torch's text on a failed unpickling, is advice to turn
    # the guard off, or to report to PyTorch.
    reason = re.split(r'(?<=\S)\.\s|\n', str(error))[0].strip()
    if isinstance(error, pickle.UnpicklingError):
        reason = 'not a pickle of torch.save'
    because = f' ({reason})' if re.search('[a-z]{3}', reason) else ''
    return f'{path} ({path.stat().st_size} bytes) is no checkpoint or is damaged; fetch or save it again{because}'
