"""What official code wraps around its weights when it saves them."""

import os
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sw_mm.compat.torch_load import safe_load

# mmengine's name and the name in the training scripts of the papers.
CONTAINERS = ('state_dict', 'model')


def read_state_dict(checkpoint: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a backbone, and of what stands beside it, from a checkpoint.

    Understood are a bare state dict, one under ``state_dict`` or ``model`` beside anything else (optimiser, epoch,
    ``argparse.Namespace`` of options), keys with ``module.`` in front (data-parallel models), and whole classifiers,
    segmentors and detectors, of which only what is under ``backbone.`` is returned. Nothing in the file is executed.

    Args:
        checkpoint: Path of the file; ``~`` is the home folder.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file holds no state dict.
    """
    name = os.fspath(checkpoint)
    path = os.path.abspath(os.path.expanduser(name))
    if '://' in name:
        raise FileNotFoundError(f'checkpoint={name!r} is a URL; download it first and give the path of the file')
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f'checkpoint={name!r} is not a file (looked for at {path}); give the path of a downloaded checkpoint, or '
            'None to train from scratch'
        )
    state_dict = safe_load(path)
    for key in CONTAINERS:
        if isinstance(state_dict, Mapping) and isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
    if not _is_state_dict(state_dict):
        raise ValueError(f'checkpoint={name!r} holds no weights: no state dict at its top or in {CONTAINERS}')
    for prefix in ('module.', 'backbone.'):
        if any(key.startswith(prefix) for key in state_dict):
            state_dict = {
                key.removeprefix(prefix): tensor for key, tensor in state_dict.items() if key.startswith(prefix)
            }
    return dict(state_dict)


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )
