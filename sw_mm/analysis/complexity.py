"""Parameters and multiply-accumulates of a model, as papers count them and as they are executed."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from sw_mm.kernels.arguments import is_integer


@dataclass(frozen=True)
class Complexity:
    """Size and cost of a model.

    Attributes:
        params: Number of parameters.
        macs: Multiply-accumulates of one input by the papers' convention: convolutions and linear layers, in the form
            in which they are published; nothing else counts.
        executed_macs: Multiply-accumulates that convolutions and matrix products of this implementation really do.
    """

    params: int
    macs: int
    executed_macs: int

    def __str__(self) -> str:
        executed = f'{self.executed_macs / 1e9:.3f} executed'
        return f'{self.params / 1e6:.3f} M parameters, {self.macs / 1e9:.3f} GMACs ({executed})'


def complexity(model: nn.Module, input_shape: Sequence[int] = (3, 224, 224)) -> Complexity:
    """Count a model in eval mode.

    A copy without data runs on torch's meta device, so no memory is needed and large inputs cost nothing. Counted are
    the operations that torch's ``FlopCounterMode`` knows; half of its FLOPs are MACs. A module whose execution differs
    from its published form says what it costs there by a method ``published_macs(height, width)``.

    Args:
        model: Any module that takes one tensor.
        input_shape: Shape of one input, (C, H, W).

    Raises:
        ValueError: If ``input_shape`` is not three positive integers.
    """
    input_shape = checked_shape(input_shape)
    model = without_data(model)
    counter = FlopCounterMode(display=False)
    surplus = 0  # of the published over the executed form

    def before(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        nonlocal surplus
        surplus += module.published_macs(*args[0].shape[-2:]) + counter.get_total_flops() // 2

    def after(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal surplus
        surplus -= counter.get_total_flops() // 2

    for module in model.modules():
        if hasattr(module, 'published_macs'):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)
    with torch.no_grad(), counter:
        model(torch.empty(1, *input_shape, device='meta'))
    executed = counter.get_total_flops() // 2
    return Complexity(sum(p.numel() for p in model.parameters()), executed + surplus, executed)


def checked_shape(input_shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of one input.

    Raises:
        ValueError: If it is not three positive integers.
    """
    given = tuple(input_shape) if isinstance(input_shape, Sequence) else ()
    if len(given) != 3 or not all(is_integer(size) and size > 0 for size in given):
        raise ValueError(f'input_shape must be three positive integers, (C, H, W); got {input_shape!r}')
    return given


def without_data(model: nn.Module) -> nn.Module:
    """Copy a model to torch's meta device, in eval mode."""
    tensors: dict[int, Tensor] = {id(p): nn.Parameter(p.detach().to('meta'), False) for p in model.parameters()}
    tensors |= {id(b): b.to('meta') for b in model.buffers()}
    return copy.deepcopy(model, tensors).eval()
