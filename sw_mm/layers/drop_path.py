"""Stochastic depth."""

from torch import Tensor, nn

from sw_mm.kernels.arguments import number_in


class DropPath(nn.Module):
    """Drop a residual branch, sample by sample, and scale the survivors so that the mean stays (training only).

    Source: Huang et al., "Deep networks with stochastic depth", ECCV 2016.

    Args:
        drop_prob: Probability of a drop, in [0, 1).

    Raises:
        ValueError: If ``drop_prob`` is no number in [0, 1).
    """

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = number_in('drop_prob', drop_prob, 0, 1)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop_prob == 0:
            return x
        keep = 1 - self.drop_prob
        mask = x.new_empty(x.shape[:1] + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * mask.div_(keep)

    def extra_repr(self) -> str:
        return f'drop_prob={self.drop_prob:.3f}'
