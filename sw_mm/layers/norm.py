"""Normalisation layers that torch does not have."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

NormFactory = Callable[[int], nn.Module]


class LayerNorm2d(nn.LayerNorm):
    """Layer normalisation over the channels of a (N, C, H, W) map, at each position by itself.

    The result has ``torch.channels_last`` strides: the layout in which large depthwise kernels and the linear layers
    of a block run fastest.

    Args:
        channels: C.
        eps: Added to the variance.
    """

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__(channels, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GlobalResponseNorm(nn.Module):
    """Global response normalisation of a (N, H, W, C) map.

    With G the L2 norm of each channel over the map and N = G / (mean of G over channels + eps), the result is
    ``(gamma * N + 1) * x + beta``. Both parameters start at zero, which makes the layer the identity. G is summed in
    float32 at least, whatever the dtype of the input; the result has the dtype of the input.

    Source: ConvNeXt V2 (arXiv 2301.00808), section 3; the shape (1, 1, 1, C) of the parameters is that of the
    official code and counts for weight decay, which spares only 1-D tensors.

    Args:
        channels: C.
        eps: Added to the mean of G.
        use_bias: Whether ``beta`` exists. A deployed block has folded it into the linear layer behind.
    """

    def __init__(self, channels: int, eps: float = 1e-6, use_bias: bool = True) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.empty(1, 1, 1, channels))
        self.register_parameter('beta', nn.Parameter(torch.empty(1, 1, 1, channels)) if use_bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Make the layer the identity."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        response = _position_norm(x)
        relative = response / (response.mean(dim=-1, keepdim=True) + self.eps)
        scale = (self.gamma * relative + 1).to(x.dtype)
        return x * scale if self.beta is None else torch.addcmul(self.beta.to(x.dtype), x, scale)

    def extra_repr(self) -> str:
        return f'{self.gamma.shape[-1]}, eps={self.eps}, use_bias={self.beta is not None}'


def _position_norm(x: Tensor) -> Tensor:
    """Return the L2 norm over the positions of a (N, H, W, C) map, (N, 1, 1, C), in float32 at least."""
    dtype = torch.promote_types(x.dtype, torch.float32)
    if x.is_cpu and x.dtype == dtype:
        # vector_norm over leading axes is 2 to 20 times slower on the CPU. The bound keeps the gradient at zero finite.
        energy = x.square().sum(dim=(1, 2), keepdim=True)
        return energy.clamp_min(torch.finfo(dtype).tiny).sqrt()
    return torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=dtype)


def set_norm_eval(module: nn.Module) -> None:
    """Put every batch norm of ``module`` into eval mode: running statistics are used and no longer updated."""
    for child in module.modules():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            child.eval()
