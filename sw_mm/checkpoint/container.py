"""What official code, data-parallel training and OpenMMLab wrap around the weights that they save."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from sw_mm.compat.torch_load import safe_load

from .download import fetch

# mmengine's name, and the names in the training scripts of the papers and in timm.
CONTAINERS = ('state_dict', 'model')
AVERAGED = ('model_ema', 'state_dict_ema')
# What averaged and data-parallel models count beside their weights.
COUNTERS = {'steps', 'n_averaged'}
# What a checkpoint's ``meta`` says about the data it was trained for, in today's and in earlier versions of OpenMMLab.
DATA_META = ('dataset_meta', 'CLASSES', 'PALETTE')


class Weights(NamedTuple):
    """The weights of one file.

    Attributes:
        backbone: Those of the backbone, by their official names.
        rest: Those of all other parts, by OpenMMLab's names; a classifier's head is ``head.fc.*``.
        meta: Names of the classes and the like, as they stood in the file.
    """

    backbone: dict[str, Tensor]
    rest: dict[str, Tensor]
    meta: dict[str, Any]


def read_weights(checkpoint: str | os.PathLike, sha256: str | None = None, ema: bool = False) -> Weights:
    """Read the weights in a checkpoint, whatever wraps them. Nothing in the file is executed.

    Understood are a bare state dict, one under ``state_dict`` or ``model`` beside anything else (optimiser, epoch,
    ``argparse.Namespace`` of options), keys with ``module.`` in front (data-parallel models), and whole classifiers,
    segmentors and detectors of OpenMMLab.

    The scripts of the papers keep averaged weights beside the trained ones, as ``model_ema``. OpenMMLab's hooks swap
    the two whenever they save: what stands in a file as the model is the average, and ``ema_state_dict`` (mmengine) or
    ``ema_*`` (before 2022) is what was trained. The latter is never returned.

    Args:
        checkpoint: Path of the file, ``~`` being the home folder, or an https URL, see ``fetch``.
        sha256: SHA-256 of the file, or at least its first 8 digits.
        ema: Take the averaged weights, where the file keeps them apart.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If the URL cannot be downloaded.
        TypeError: If ``checkpoint`` is no path and no URL.
        ValueError: If the file cannot be read, has another SHA-256, or holds no such weights.
    """
    path = fetch(checkpoint, sha256)
    content = safe_load(path)
    if sha256 is None:
        _check_records(path, checkpoint)
    meta = content.get('meta') if isinstance(content, Mapping) else None
    meta = {key: meta[key] for key in DATA_META if key in meta} if isinstance(meta, Mapping) else {}
    return Weights(*split(_state_dict(content, checkpoint, ema)), meta)


def split(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate a backbone, with its official names, from all else, with OpenMMLab's names.

    Args:
        state_dict: Of a backbone, of an official classifier, or of a whole model of OpenMMLab.
    """
    names = {name: name.removeprefix('module.') for name in state_dict}
    # A hook of OpenMMLab 0.x stored the weights that it averages as buffers, whose names have no dots.
    shadows = {f'ema_{name.replace(".", "_")}' for name in names.values()}
    state_dict = {name: state_dict[key] for key, name in names.items() if name not in shadows and name not in COUNTERS}
    if any(name.startswith('backbone.') for name in state_dict):
        backbone = {name[9:]: tensor for name, tensor in state_dict.items() if name.startswith('backbone.')}
        rest = {name: tensor for name, tensor in state_dict.items() if not name.startswith('backbone.')}
    else:
        backbone, rest = state_dict, {}
    for name in ('head.weight', 'head.bias'):
        if name in backbone:
            rest.setdefault(f'head.fc.{name[5:]}', backbone[name])
    backbone = {name: tensor for name, tensor in backbone.items() if not name.startswith('head.')}
    return _with_final_norm(backbone), rest


def _with_final_norm(backbone: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo where mmpretrain's RepLKNet keeps the final norm of a classifier; its other names are the official ones."""
    if 'stages.0.blocks.0.pw1.conv.weight' not in backbone or 'stages.0.norm.weight' in backbone:
        return backbone
    return {
        f'norm.{name[14:]}' if name.startswith('stages.3.norm.') else name: tensor for name, tensor in backbone.items()
    }


def _state_dict(content: Any, checkpoint: str | os.PathLike, ema: bool) -> Mapping[str, Tensor]:
    named = f'checkpoint={os.fspath(checkpoint)!r}'
    top = content if isinstance(content, Mapping) else {}
    averaged = next((top[key] for key in AVERAGED if _is_state_dict(top.get(key))), None)
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    found = _is_state_dict(content)
    if ema and averaged is not None:
        return averaged
    swapped = found and ('ema_state_dict' in top or any(name.startswith('ema_') for name in content))
    if ema and not swapped:
        raise ValueError(f'{named} holds no averaged weights; set ema=False to take the trained ones')
    if not found:
        remedy = '; it holds averaged weights, which ema=True takes' if averaged is not None else ''
        raise ValueError(f'{named} holds no weights: no state dict at its top or in {CONTAINERS}{remedy}')
    return content


def _is_state_dict(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(key, str) and isinstance(value, Tensor) for key, value in content.items())
    )


def _check_records(path: Path, checkpoint: str | os.PathLike) -> None:
    """Compare the tensors in a file with their checksums, which torch leaves to others."""
    if not zipfile.is_zipfile(path):  # the format of torch<1.6 has none
        return
    with zipfile.ZipFile(path) as file:
        damaged = file.testzip()
    if damaged is not None:
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} is damaged: {damaged} in it does not have its checksum; fetch or '
            'save the file again, or give its sha256 if it was saved without checksums'
        )
