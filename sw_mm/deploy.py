"""The deploy form of whole models: classifiers, segmentors, detectors, or any tree of modules."""

import inspect
from typing import Literal, TypeVar

from torch import nn

Model = TypeVar('Model', bound=nn.Module)


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
