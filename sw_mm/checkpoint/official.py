"""Load official weights into a backbone: everything, or nothing and one error that says why."""

import os
import re
from collections.abc import Collection, Iterable

import torch
from torch import Tensor, nn

from sw_mm.layers import ShiftWiseConv2d

from .container import read_state_dict

# The classifier of a checkpoint, which a backbone has no place for. A backbone for classification has ``norm`` itself.
CLASSIFIER = re.compile(r'(head|norm)\.')
# Norms of the outputs for dense prediction: official checkpoints come from classification and have none.
DENSE_NORM = re.compile(r'norm\d\.')
# Early ShiftWise code stored its connection tables; the released code generates them.
STORED_TABLE = re.compile(r'(?P<operator>.*large_kernel)\.(\w+\.)*(?P<table>rep|ghost|pad_hv|idx_identit|idx_out)1')

# What only one form of the operator has in its parameters' names, by the argument ``deploy`` that builds that form.
FORMS = {False: '.large_kernel.LoRAs.', 'official': '.large_kernel.LoRA.', True: '.large_kernel.horizontal'}


def load_official(model: nn.Module, checkpoint: str | os.PathLike) -> None:
    """Load the weights that the authors of a network released into its backbone here.

    The checkpoint's classifier is dropped, and so is its final norm if the backbone has none; the output norms of a
    backbone for dense prediction keep their fresh values. Everything else has to match. Connection tables in old
    ShiftWise checkpoints are compared with the generated ones.

    Args:
        model: A backbone, or a classifier, segmentor or detector around one.
        checkpoint: Path of the file. It is read safely: nothing in it is executed.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file cannot be read, or does not fit. The model is unchanged then.
    """
    backbone = getattr(model, 'backbone', model)
    found = read_state_dict(checkpoint)
    wanted = backbone.state_dict()
    found, tables = _split_off_tables(found)
    found = {name: tensor for name, tensor in found.items() if name in wanted or not CLASSIFIER.match(name)}
    problems = {
        'unexpected': [name for name in found if name not in wanted],
        'missing': [name for name in wanted if name not in found and not DENSE_NORM.match(name)],
        'of another shape': [
            f'{name} {tuple(tensor.shape)} instead of {tuple(wanted[name].shape)}'
            for name, tensor in found.items()
            if name in wanted and tensor.shape != wanted[name].shape
        ],
    }
    if any(problems.values()):
        listed = '; '.join(f'{len(names)} {kind} ({_first(names)})' for kind, names in problems.items() if names)
        raise ValueError(
            f'checkpoint={os.fspath(checkpoint)!r} does not fit {type(backbone).__name__}: {listed}. '
            + _remedy(_form(found), _form(wanted))
        )
    _check_tables(backbone, tables, checkpoint)
    backbone.load_state_dict(found, strict=False)


def _form(names: Collection[str]) -> bool | str | None:
    """Return the ``deploy`` of the models whose operators have such parameters."""
    return next((deploy for deploy, mark in FORMS.items() if any(mark in name for name in names)), None)


def _remedy(of_file: bool | str | None, of_model: bool | str | None) -> str:
    """Say what to change, given the forms of the operators in the file and in the model."""
    if of_file == of_model or None in (of_file, of_model):
        return (
            'Is it the file of another network, or are arch, kernel_size, num_paths and the like not those of the file?'
        )
    fold = ', load the file, then call switch_to_deploy()' if of_file is False or of_model is True else ''
    return f'The file has the form deploy={of_file!r}, the model deploy={of_model!r}: build it with {of_file!r}{fold}'


def _first(names: Iterable[str], count: int = 3) -> str:
    names = list(names)
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def _split_off_tables(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    tables = {name: tensor for name, tensor in state_dict.items() if STORED_TABLE.fullmatch(name)}
    return {name: tensor for name, tensor in state_dict.items() if name not in tables}, tables


def _check_tables(backbone: nn.Module, tables: dict[str, Tensor], checkpoint: str | os.PathLike) -> None:
    """Compare stored connection tables with those of the operators they belong to."""
    operators = {name: module for name, module in backbone.named_modules() if isinstance(module, ShiftWiseConv2d)}
    for name, stored in tables.items():
        place = STORED_TABLE.fullmatch(name)
        operator = operators.get(place['operator'])
        if operator is None:
            raise ValueError(f'checkpoint={os.fspath(checkpoint)!r} does not fit: the model has no operator for {name}')
        layout = operator.tables.official_layout()
        split = operator.tables.channels
        layout.update(rep=operator.channel_order[:split].cpu(), ghost=operator.channel_order[split:].cpu())
        if not torch.equal(stored.cpu().long(), torch.as_tensor(layout[place['table']]).long()):
            raise ValueError(
                f'checkpoint={os.fspath(checkpoint)!r} was trained with other connections than this model has: {name} '
                'differs. Check kernel_size, small_kernel, num_edges and ghost_ratio'
            )
