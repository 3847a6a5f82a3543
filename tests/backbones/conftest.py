from collections.abc import Callable

import pytest
import torch
from torch import nn


@pytest.fixture
def perturb() -> Callable[[nn.Module], nn.Module]:
    """Return a function that moves every parameter and statistic of a net away from its start."""

    def function(net: nn.Module) -> nn.Module:
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand_like(tensor) * 0.2 - 0.1)
        return net

    return function
