"""The deploy form of whole models: classifiers, segmentors, detectors, or any tree of modules."""

import inspect
import os
from collections.abc import Iterator
from typing import Literal, TypeVar

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn

Model = TypeVar('Model', bound=nn.Module)

# Largest relative difference between the float64 outputs of a model before and after folding that rounding explains.
TOLERANCE = 1e-9


def switch_to_deploy(model: Model, form: Literal['full', 'official'] = 'full') -> Model:
    """Fold every module of a model that can fold itself, in place.

    The outermost modules with a method ``switch_to_deploy`` are called, once each; they look after what is inside them.
    That includes other libraries' re-parameterised modules, whose method takes no form.

    Outputs in eval mode stay equal, up to rounding. A second call changes nothing.

    Args:
        model: Any model; its device and dtype stay.
        form: ``'full'`` folds all that is linear at inference; ``'official'`` gives the deploy form, and keys, of each
            backbone's official code.

    Returns:
        ``model``.

    Raises:
        ValueError: If ``form`` is neither.
    """
    if form not in ('full', 'official'):
        raise ValueError(f"form must be 'full' or 'official'; got {form!r}")
    _fold(model, form, seen=set())
    return model


def _fold(module: nn.Module, form: str, seen: set[nn.Module]) -> None:
    if module in seen:
        return
    seen.add(module)
    fold = getattr(module, 'switch_to_deploy', None)
    if fold is None:
        for child in module.children():
            _fold(child, form, seen)
    elif 'form' in inspect.signature(fold).parameters:
        fold(form=form)
    else:
        fold()


def build_model(config: str | os.PathLike) -> nn.Module:
    """Build the model of a config file of mmpretrain, mmseg or mmdet, on the CPU and with fresh weights.

    Args:
        config: Path of the file; its ``default_scope`` names the library.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it has no ``default_scope`` or no ``model``.
    """
    config, name = Config.fromfile(config), os.fspath(config)
    for key in ('default_scope', 'model'):
        if config.get(key) is None:
            raise ValueError(f'config={name!r} must have {key}, as the configs of mmpretrain, mmseg and mmdet do')
    init_default_scope(config.default_scope)
    return MODELS.build(config.model)


@torch.no_grad()
def switch_and_compare(
    model: Model, form: Literal['full', 'official'] = 'full', size: tuple[int, int] = (96, 160)
) -> tuple[Model, float]:
    """Fold a model as ``switch_to_deploy`` does, and compare its outputs on random images before and after.

    All of it runs in float64, where rounding cannot hide a mistake; the model gets its dtype back at the end.

    Args:
        model: A model of mmpretrain, mmseg or mmdet; it is left in eval mode.
        form: See ``switch_to_deploy``.
        size: Height and width of the images.

    Returns:
        ``model``, and the largest difference, in parts of the largest value of its tensor.

    Raises:
        ValueError: If ``form`` is neither, or a difference exceeds ``TOLERANCE``.
    """
    channels = getattr(getattr(model, 'backbone', None), 'in_channels', 3)
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dtype = next(model.parameters()).dtype
    model.eval().double()
    before = _outputs(model, x)
    after = _outputs(switch_to_deploy(model, form), x)
    differences = [
        (new - old).abs().max() / old.abs().max().clamp_min(torch.finfo(old.dtype).tiny)
        for old, new in zip(before, after, strict=True)
    ]
    difference = torch.stack(differences).max().item()  # which is not a number if one of them is not
    if not difference <= TOLERANCE:
        raise ValueError(
            f'the folded model gives other outputs: they differ by {difference:.1e} of the largest one, where up to '
            f'{TOLERANCE:.0e} is rounding. Are the weights finite?'
        )
    return model.to(dtype), difference


def _outputs(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the features of a detector; those of other models and what their heads make of them."""
    outputs = [model.extract_feat(x)]
    if getattr(model, 'decode_head', None) is not None or getattr(model, 'head', None) is not None:
        outputs.append(model(x, mode='tensor'))
    return list(_tensors(outputs))


def _tensors(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, list | tuple):
        for output in outputs:
            yield from _tensors(output)
