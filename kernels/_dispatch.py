"""Which backend computes a call: what is usable here, what the user asks for, and what is taken unasked."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from . import _native

BACKENDS = ('reference', 'aten', 'native', 'triton')
VARIABLE = 'SW_MM_KERNELS'
_SOURCE = f'the environment variable {VARIABLE}'
# Read once: to ask for it takes 8 us or more if caches are cold, at every call.
_from_environment = os.environ.get(VARIABLE)

# A context variable, not a global: other threads and tasks keep their own choice.
_chosen: ContextVar[str | None] = ContextVar('sw_mm_kernels_backend', default=None)
_HAS_ONEDNN = torch.backends.mkldnn.is_available()
_library = torch.library.Library('sw_mm', 'FRAGMENT')  # takes its registrations along when it is deleted
_PLAIN_TENSORS = (Tensor, torch.nn.Parameter)
# Asked for at every call: to find them in PyTorch's modules takes as long again if caches are cold.
_is_tracing = torch._C._is_tracing
_len_torch_dispatch_stack = torch._C._len_torch_dispatch_stack
_are_functorch_transforms_active = torch._C._are_functorch_transforms_active
_is_profiler_enabled = torch.autograd._profiler_enabled
# For lack of it, the answer is left to the devices.
_is_any_autocast_enabled = getattr(torch._C, '_is_any_autocast_enabled', lambda: True)
# PyTorch before 2.7 cannot tell an export from a compilation.
_is_exporting = getattr(torch.compiler, 'is_exporting', torch.compiler.is_compiling)


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute with one backend inside a ``with`` block, whatever the environment says.

    The choice holds for this thread or task, and for the gradients of what is computed in the block.

    Args:
        name: ``'auto'``, ``'reference'``, ``'aten'``, ``'native'`` or ``'triton'``. What it cannot compute raises.

    Raises:
        ValueError: If there is no such backend.
    """
    token = _chosen.set(_known(name, 'name'))
    try:
        yield
    finally:
        _chosen.reset(token)


def requested_backend() -> str:
    """Name the backend asked for by :func:`use_backend`, else by ``SW_MM_KERNELS``, else ``'auto'``.

    The environment variable counts as it was when this package was imported.

    Raises:
        ValueError: If the environment variable names no backend.
    """
    return _known(request() or 'auto', _SOURCE)


def request() -> str | None:
    """Give what :func:`requested_backend` depends on, unchecked."""
    return _chosen.get() or _from_environment


def backends() -> dict[str, str | None]:
    """List the backends, with the reason why one cannot be used in this process, or None if it can."""
    return {name: unusable(name) for name in BACKENDS}


def unusable(name: str) -> str | None:
    """Say why a backend cannot be used in this process, or None if it can."""
    if name == 'aten' and not _HAS_ONEDNN:
        return 'PyTorch is built without oneDNN, whose slow paths this backend avoids'
    if name == 'native':
        return _native.unusable()
    if name == 'triton':
        try:
            from ._triton import INTERPRETED
        except ImportError as error:
            return str(error)
        # The driver is asked only before the first use of a device: asking takes as long as a small kernel.
        if not INTERPRETED and not torch.cuda.is_initialized() and not torch.cuda.is_available():
            return 'there is no CUDA device; with TRITON_INTERPRET=1 from the start CPU tensors are taken, for tests'
    return None


def choose(device: torch.device, preferred: str, unsupported: Callable[[str], str | None]) -> str:
    """Choose the backend of a call.

    Without data (on the meta device), in an exported or traced program, in forward-mode differentiation and under the
    transforms of ``torch.func``, that is always ``'reference'``: plain convolutions, which every runtime and transform
    knows.

    Args:
        device: Where the tensors are.
        preferred: Backend to take if nobody asks for one and it can compute the call; else ``'reference'``.
        unsupported: Says why a backend cannot compute this call, or None if it can.

    Raises:
        RuntimeError: If the backend that was asked for cannot be used.
    """
    if device.type == 'meta' or _is_exporting() or torch.jit.is_tracing() or _is_transformed():
        return 'reference'
    requested = requested_backend()
    name = preferred if requested == 'auto' else requested
    if name == 'reference':
        return name
    reason = unusable(name) or unsupported(name)
    if not reason:
        return name
    if requested == 'auto':
        return 'reference'
    raise RuntimeError(f'the kernels of backend {name!r}, which was asked for, cannot be used: {reason}')


def autocast(*arguments: object) -> tuple:
    """Cast tensors, and lists of tensors, to the dtype that autocast asks for on the device of the first argument.

    As for PyTorch's convolutions, float64 stays what it is, and so does what is no floating-point tensor.
    """
    device = arguments[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return arguments
    dtype = torch.get_autocast_dtype(device)
    return tuple(_cast(argument, dtype) for argument in arguments)


def _cast(argument: object, dtype: torch.dtype) -> object:
    if isinstance(argument, Tensor):
        return argument.to(dtype) if argument.is_floating_point() and argument.dtype != torch.float64 else argument
    return [_cast(item, dtype) for item in argument] if isinstance(argument, (list, tuple)) else argument


def is_eager(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Tell whether an operator can be computed without going through PyTorch's dispatcher.

    It cannot if something wants to see the operator: a tracer, a mode that counts or fakes, a transform of functions, a
    profiler, a subclass of tensors; callers look for a compiler first. Under autocast, the operator keeps what computes
    it from being cast.
    """
    return (
        _is_plain(x)
        and _is_plain(weight)
        and (bias is None or _is_plain(bias))
        and (x.is_cpu or x.is_cuda)
        and not _is_tracing()
        and not _len_torch_dispatch_stack()
        and not _is_transformed()
        and not is_autocast(x)
        and not _is_profiler_enabled()
    )


def is_autocast(x: Tensor) -> bool:
    """Tell whether autocast may change the dtype of a tensor on a CPU or a CUDA device."""
    # Asking for one device by its name takes 4 us if caches are cold, and its own name as long again.
    return _is_any_autocast_enabled() and torch.is_autocast_enabled('cpu' if x.is_cpu else 'cuda')


def _is_plain(tensor: Tensor) -> bool:
    """Tell whether the memory of a tensor holds its numbers."""
    return type(tensor) in _PLAIN_TENSORS and not tensor.is_neg() and not tensor._is_zerotensor()


def _is_transformed() -> bool:
    return _are_functorch_transforms_active() or forward_ad._current_level >= 0


def register_autocast(*names: str, cast: bool = True) -> None:
    """Give operators an autocast rule, which also keeps autocast out of whatever computes them.

    PyTorch's own ``register_autocast`` would fix one dtype for a kind of device for good. The public functions cast
    too, because which backend they choose depends on the dtype.

    Args:
        names: Operators of this package.
        cast: Whether the rule casts. Gradients are computed in the dtype of their output, wherever that is done.
    """
    for name in names:
        operator = getattr(torch.ops.sw_mm, name).default
        for device in ('CPU', 'CUDA'):
            _library.impl(name, _autocast_rule(operator, f'Autocast{device}', cast), f'Autocast{device}')


def _autocast_rule(operator: Callable, key: str, cast: bool) -> Callable:
    keys = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

    def rule(*arguments: object) -> object:
        arguments = autocast(*arguments) if cast else arguments
        with torch._C._ExcludeDispatchKeyGuard(keys):
            return operator(*arguments)

    return rule


def _known(name: str, source: str) -> str:
    if name not in ('auto', *BACKENDS):
        raise ValueError(f"{source} must be 'auto' or one of {BACKENDS}; got {name!r}")
    return name
