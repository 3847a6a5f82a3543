"""Load weights: everything, or nothing and one error that says why."""

import os
import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from sw_mm.kernels import channel_split
from sw_mm.layers import ShiftWiseConv2d

from .container import read_weights, split
from .families import DEPLOY, STORED_TABLE, Description, describe

# What leads to the classifier of a checkpoint, and what backbones for dense prediction have no place for.
FINAL_LAYERS = re.compile(r'(norm|conv2)\.')
# Norms of the outputs for dense prediction: official checkpoints come from classification and have none.
OUTPUT_NORM = re.compile(r'(norm\d|stages\.\d\.norm)\.')


def load_official(
    model: nn.Module, checkpoint: str | os.PathLike, sha256: str | None = None, ema: bool = False
) -> None:
    """Load the weights that the authors of a network released into its backbone here.

    The checkpoint's head is dropped, and so are its final layers if the backbone has none; if the checkpoint has no
    norms of the outputs, those of a backbone for dense prediction keep their fresh values. Everything else has to
    match. Connection tables in old ShiftWise checkpoints are compared with the generated ones.

    Args:
        model: A backbone, or a classifier, segmentor or detector around one.
        checkpoint: Path of the file or an https URL, see ``read_weights``. Nothing in it is executed.
        sha256: SHA-256 of the file, or at least its first 8 digits.
        ema: Take the averaged weights, where the file keeps them apart.

    Raises:
        FileNotFoundError: If there is no such file.
        ConnectionError: If the URL cannot be downloaded.
        ValueError: If the file cannot be read, has another SHA-256, or does not fit. The model is unchanged then.
    """
    backbone = getattr(model, 'backbone', model)
    weights = read_weights(checkpoint, sha256, ema)
    wanted = backbone.state_dict()
    found = {
        name: tensor for name, tensor in weights.backbone.items() if name in wanted or not FINAL_LAYERS.match(name)
    }
    has_output_norms = any(map(OUTPUT_NORM.match, found))
    _load(
        backbone, found, checkpoint, optional=lambda name: not has_output_norms and OUTPUT_NORM.match(name) is not None
    )


def load_whole(model: nn.Module, checkpoint: str | os.PathLike, sha256: str | None = None, ema: bool = False) -> dict:
    """Load all weights of a classifier, segmentor or detector, from a file of this library or an official one.

    Args:
        model: A model of mmpretrain, mmseg or mmdet around a backbone.
        checkpoint: See ``load_official``.
        sha256: See ``load_official``.
        ema: See ``load_official``.

    Returns:
        The ``meta`` for a file of this model: what the checkpoint says about its data.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: As ``load_official`` does.
    """
    weights = read_weights(checkpoint, sha256, ema)
    found = {f'backbone.{name}': tensor for name, tensor in weights.backbone.items()}
    _load(model, {**found, **weights.rest}, checkpoint)
    return weights.meta


def _load(
    module: nn.Module,
    found: Mapping[str, Tensor],
    checkpoint: str | os.PathLike,
    optional: Callable[[str], bool] = lambda name: False,
) -> None:
    """Load what was found, all of which the module must have; of its own, only what is optional may be missing."""
    found, tables = split_off_tables(found)
    wanted = module.state_dict()
    if listed := misfits(found, wanted, optional):
        name = type(getattr(module, 'backbone', module)).__name__
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} does not fit {name}: {listed}. '
            + _remedy(describe(split({**found, **tables})[0]), describe(split(wanted)[0]))
        )
    check_tables(module, tables, checkpoint)
    module.load_state_dict(found, strict=False)


def misfits(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], optional: Callable[[str], bool] = lambda name: False
) -> str:
    """List what keeps weights from being loaded, shortly; nothing if they fit."""
    problems = {
        'unexpected': [name for name in found if name not in wanted],
        'missing': [name for name in wanted if name not in found and not optional(name)],
        'of another shape': [
            f'{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}'
            for name, tensor in found.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
    }
    return '; '.join(f'{len(names)} {kind} ({_first(names)})' for kind, names in problems.items() if names)


def _remedy(file: Description | None, model: Description | None) -> str:
    """Say what the file is, what the model is, and what to change."""
    if file is None:
        return f'The file is of no family known here, the model is {model}'
    if model is None:
        return f'The file is {file}; build the model for it'
    both = f'The file is {file}; the model is {model}: '
    if file.family != model.family:
        return f'{both}take a file of {model.family}, or build {file.family}'
    if file.form != model.form:
        of_file, of_model = DEPLOY[file.form], DEPLOY[model.form]
        fold = ', load the file, then call switch_to_deploy()' if of_file is False or of_model is True else ''
        return f'{both}build it with deploy={of_file!r}{fold}'
    names = [key for key in {**file.settings, **model.settings} if file.settings.get(key) != model.settings.get(key)]
    if file.settings and model.settings and names:
        return f'{both}build it with the {", ".join(names)} of the file'
    return f'{both}the file is incomplete or was changed, or the settings of the two differ'


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def split_off_tables(state_dict: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Separate weights from the connection tables that early ShiftWise code stored among them."""
    tables = {name: tensor for name, tensor in state_dict.items() if STORED_TABLE.fullmatch(name)}
    return {name: tensor for name, tensor in state_dict.items() if name not in tables}, tables


def check_tables(module: nn.Module, tables: Mapping[str, Tensor], checkpoint: str | os.PathLike) -> None:
    """Compare stored connection tables with those of the operators they belong to.

    Raises:
        ValueError: If one differs, or its operator is not there.
    """
    operators = {name: operator for name, operator in module.named_modules() if isinstance(operator, ShiftWiseConv2d)}
    for name, stored in tables.items():
        place = STORED_TABLE.fullmatch(name)
        operator = operators.get(place['operator'])
        if operator is None:
            raise ValueError(f'checkpoint={os.fspath(checkpoint)!r} does not fit: the model has no operator for {name}')
        rep, ghost = channel_split(operator.in_channels, operator.ghost_ratio, operator.even_split)
        layout = dict(operator.tables.official_layout(), rep=rep, ghost=ghost)
        if not torch.equal(stored.cpu().long(), torch.tensor(layout[place['table']]).long()):
            raise ValueError(
                f'checkpoint={os.fspath(checkpoint)!r} was trained with other connections than this model has: {name} '
                'differs. Check kernel_size, small_kernel, num_edges and ghost_ratio'
            )
