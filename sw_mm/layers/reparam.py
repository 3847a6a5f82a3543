"""Algebra of structural re-parameterisation: what turns a trained branch into the weights of one plain layer.

The functions compute in float64 and give float64 tensors, so that rounding happens once, when the caller casts the
final weights. They need no gradient and run under ``torch.no_grad``.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def check_deploy(deploy: object) -> None:
    """Check the argument that tells which form to build.

    Raises:
        ValueError: If it is neither False (the training form), True (the full deploy form) nor ``'official'``.
    """
    if not isinstance(deploy, bool) and deploy != 'official':  # by type, as 1 == True
        raise ValueError(f"deploy must be False, True or 'official'; got {deploy!r}")


@torch.no_grad()
def norm_as_affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Express a batch norm in evaluation mode as ``y = scale * x + shift`` per channel.

    Args:
        norm: A batch norm of any kind (``BatchNorm2d``, ``SyncBatchNorm``, ...).

    Returns:
        Scale and shift, float64 ``(C,)`` each.

    Raises:
        ValueError: If the norm keeps no running statistics, so that it is no fixed map.
    """
    mean, variance = getattr(norm, 'running_mean', None), getattr(norm, 'running_var', None)
    if mean is None or variance is None:
        raise ValueError(
            f'{type(norm).__name__} keeps no running statistics and cannot be folded into weights; '
            'use a batch norm with track_running_stats=True'
        )
    scale = (variance.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    return scale, shift


@torch.no_grad()
def scale_outputs(weight: Tensor, scale: Tensor) -> Tensor:
    """Multiply the outputs of a convolution or linear layer by a factor per channel, through its weight.

    Args:
        weight: ``(C_out, ...)``.
        scale: ``(C_out,)``.

    Returns:
        Float64 tensor of the shape of ``weight``.
    """
    return weight.double() * scale.double().reshape(-1, *[1] * (weight.dim() - 1))


@torch.no_grad()
def fuse_norm(weight: Tensor, bias: Tensor | None, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Fold the batch norm that follows a convolution or linear layer into the layer.

    Args:
        weight: ``(C_out, ...)``.
        bias: ``(C_out,)`` or None.
        norm: The batch norm; see ``norm_as_affine``.

    Returns:
        Weight and bias of the fused layer, float64.

    Raises:
        ValueError: If the norm keeps no running statistics.
    """
    scale, shift = norm_as_affine(norm)
    return scale_outputs(weight, scale), shift if bias is None else shift + scale * bias.double()


@torch.no_grad()
def embed_kernel(weight: Tensor, size: Sequence[int], dilation: int = 1) -> Tensor:
    """Write a depthwise kernel as a larger one with the same effect: zeros between its taps and around them.

    Args:
        weight: ``(C, 1, kh, kw)``.
        size: Height and width of the larger kernel, of the parity of ``kh`` and ``kw``.
        dilation: Distance of neighbouring taps of the kernel.

    Returns:
        Float64 ``(C, 1, *size)`` with the kernel in the centre.

    Raises:
        ValueError: If the kernel does not fit or has no place in the centre.
    """
    extents = [dilation * (taps - 1) + 1 for taps in weight.shape[2:]]
    margins = [outer - inner for outer, inner in zip(size, extents, strict=True)]
    if any(margin < 0 or margin % 2 for margin in margins):
        raise ValueError(
            f'a kernel that reaches over {tuple(extents)} taps has no centred place in size={tuple(size)}; choose a '
            'larger size of the same parity'
        )
    (top, left), (height, width) = (margin // 2 for margin in margins), extents
    out = weight.new_zeros(*weight.shape[:2], *size, dtype=torch.float64)
    out[:, :, top : top + height : dilation, left : left + width : dilation] = weight
    return out
