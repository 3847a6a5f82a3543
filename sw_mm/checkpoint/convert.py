"""From official names to OpenMMLab's and back, as files."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .container import Weights, read_weights
from .download import fetch, file_sha256
from .families import Description, describe
from .official import check_tables, misfits, split_off_tables


class Conversion(NamedTuple):
    """Converted weights.

    Attributes:
        content: What to save.
        description: The backbone that they belong to.
    """

    content: dict[str, Any]
    description: Description


def to_openmmlab(checkpoint: str | os.PathLike, sha256: str | None = None, ema: bool = False) -> Conversion:
    """Give weights the names that they have in a classifier, segmentor or detector of OpenMMLab.

    The backbone's official names get ``backbone.`` in front, and the classifier becomes ``head.fc``, as in
    ``ImageClassifier`` with ``LinearClsHead``. Whole segmentors and detectors of mmseg 0.x and mmdet 2.x, which is what
    official code trains, keep the names of their other parts: necks and heads are called the same today. Connection
    tables in old ShiftWise files are compared with the generated ones and left out.

    Args:
        checkpoint: Path or https URL, in any container, see ``read_weights``.
        sha256: SHA-256 of the file, or at least its first 8 digits.
        ema: Take the averaged weights, where the file keeps them apart.

    Returns:
        ``state_dict`` and ``meta``. ``meta['sw_mm']`` tells the family, the form, the config of a backbone that loads
        the weights strictly (None if they do not tell), and which file they come from.

    Raises:
        FileNotFoundError, ConnectionError: As ``read_weights`` does.
        ValueError: If the file cannot be read, has another SHA-256, is of no family known here, or is incomplete.
    """
    weights, description = _read(checkpoint, sha256, ema)
    path = fetch(checkpoint, sha256)
    origin = dict(
        family=description.family,
        form=description.form,
        backbone=description.config(),
        source=path.name,
        sha256=file_sha256(path),
        ema=ema,
    )
    state_dict = {f'backbone.{name}': tensor for name, tensor in weights.backbone.items()}
    return Conversion(
        dict(state_dict={**state_dict, **weights.rest}, meta={**weights.meta, 'sw_mm': origin}), description
    )


def to_official(checkpoint: str | os.PathLike, sha256: str | None = None, ema: bool = False) -> Conversion:
    """Give weights the names that official code knows; the other way round of ``to_openmmlab``.

    Args:
        checkpoint: See ``to_openmmlab``.
        sha256: See ``to_openmmlab``.
        ema: See ``to_openmmlab``.

    Returns:
        A bare state dict with ``head.weight`` and ``head.bias`` for classifiers and backbones alone. Official code for
        segmentation and detection is mmseg 0.x and mmdet 2.x: their models keep ``backbone.`` and stand under
        ``state_dict``.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: As ``to_openmmlab`` does, and if no official code has the form.
    """
    weights, description = _read(checkpoint, sha256, ema)
    if description.form == 'full':
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} is {description}, which official code does not have; convert the '
            'weights before they are folded, or folded with the form official'
        )
    heads = {f'head.fc.{name}': f'head.{name}' for name in ('weight', 'bias')}
    if weights.rest.keys() <= heads.keys():
        head = {heads[name]: tensor for name, tensor in weights.rest.items()}
        return Conversion({**weights.backbone, **head}, description)
    state_dict = {f'backbone.{name}': tensor for name, tensor in weights.backbone.items()}
    return Conversion(dict(state_dict={**state_dict, **weights.rest}, meta=weights.meta), description)


def _read(checkpoint: str | os.PathLike, sha256: str | None, ema: bool) -> tuple[Weights, Description]:
    """Read and recognise weights, and make sure that they are all there."""
    weights = read_weights(checkpoint, sha256, ema)
    description = describe(weights.backbone)
    if description is None:
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} is of no family known here; its first names are '
            f'{", ".join(list(weights.backbone)[:3])}'
        )
    backbone, tables = split_off_tables(weights.backbone)
    if description.complete:
        model = description.build()
        if listed := misfits(backbone, model.state_dict()):
            raise ValueError(
                f'checkpoint={os.fspath(checkpoint)!r} looks like {description}, but is incomplete or was changed: '
                f'{listed}'
            )
        check_tables(model, tables, checkpoint)
    elif tables or not description.settings:
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} looks like {description}, but is incomplete or was changed: too few '
            'of its names and shapes are as they should be'
        )
    return weights._replace(backbone=backbone), description


def save(content: dict[str, Any], path: str | os.PathLike, force: bool = False) -> None:
    """Write a checkpoint that appears whole or not at all.

    Args:
        content: What ``torch.save`` takes. Tensors are copied first, so that none drags along the larger one it is a
            view of.
        path: Where to write; missing folders are made.
        force: Replace a file that is there.

    Raises:
        FileExistsError: If there is a file and ``force`` is not set.
    """
    path = Path(path).expanduser()
    if path.exists() and not (force and path.is_file()):
        raise FileExistsError(f'{path} exists; choose another name' + ('' if path.is_dir() else ', or pass --force'))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.name}.part')
    try:
        with part.open('wb') as file:
            torch.save(_compact(content), file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _compact(content: Any) -> Any:
    if isinstance(content, Tensor):
        return content.detach().cpu().clone()
    return {key: _compact(value) for key, value in content.items()} if isinstance(content, dict) else content
