"""Residual blocks around any spatial mixing layer, under the parameter names of the official code."""

import math
from abc import ABC, abstractmethod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sw_mm.kernels.arguments import number_in

from .drop_path import DropPath
from .layout import ToChannelsFirst, ToChannelsLast
from .norm import GlobalResponseNorm, NormFactory
from .reparam import fuse_norm, scale_outputs
from .se import SqueezeExcite


class _MixerBlock(nn.Module, ABC):
    """``x + drop_path(gamma * feed_forward(mixer(x)))`` on (N, C, H, W) maps.

    Args:
        mixer: Mixes positions; keeps the shape of the map.
        channels: C.
        drop_path: Probability of dropping the whole branch in training.
        layer_scale_init_value: Start of ``gamma``; 0 means no ``gamma``.
        mixer_name: Name of the mixer in the state dict.
        deploy: Build the folded form, see ``switch_to_deploy``.

    Raises:
        ValueError: If ``drop_path`` or ``layer_scale_init_value`` is no number or out of range.
    """

    def __init__(
        self,
        mixer: nn.Module,
        channels: int,
        *,
        drop_path: float = 0.0,
        layer_scale_init_value: float = 1e-6,
        mixer_name: str = 'large_kernel',
        deploy: bool = False,
    ) -> None:
        super().__init__()
        self.layer_scale_init_value = number_in('layer_scale_init_value', layer_scale_init_value, 0, math.inf)
        self.mixer_name = mixer_name
        scaled = self.layer_scale_init_value > 0 and not deploy
        self.register_parameter('gamma', nn.Parameter(torch.empty(channels)) if scaled else None)
        self.add_module(mixer_name, mixer)
        self.drop_path = DropPath(drop_path)

    def reset_parameters(self) -> None:
        """Set ``gamma`` to its start; the layers inside reset themselves."""
        if self.gamma is not None:
            nn.init.constant_(self.gamma, self.layer_scale_init_value)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.feed_forward(self.get_submodule(self.mixer_name)(x)))
        return x + y if self.gamma is None else torch.addcmul(x, y, self.gamma.view(-1, 1, 1))

    @abstractmethod
    def feed_forward(self, x: Tensor) -> Tensor:
        """Mix the channels of a (N, C, H, W) map at each position, keeping its shape."""

    def switch_to_deploy(self, form: Literal['full', 'official'] = 'full') -> None:
        """Fold what is linear at inference, exactly; a second call changes nothing.

        Args:
            form: ``'full'`` folds the mixer and the feed-forward part; ``'official'`` leaves the feed-forward part as
                it is and folds the mixer as upstream does.
        """
        mixer = self.get_submodule(self.mixer_name)
        if hasattr(mixer, 'switch_to_deploy'):
            mixer.switch_to_deploy(form)
        if form == 'full':
            self._fold_feed_forward()

    @abstractmethod
    def _fold_feed_forward(self) -> None:
        """Fold what stands between the mixer and the shortcut."""


class LayerNormBlock(_MixerBlock):
    """Mixer, layer norm, and two linear layers with a GELU between: the block of ConvNeXt and SLaK.

    ``switch_to_deploy`` folds ``gamma`` into the second linear layer.
    """

    def __init__(self, mixer: nn.Module, channels: int, **kwargs) -> None:
        super().__init__(mixer, channels, **kwargs)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.reset_parameters()

    def feed_forward(self, x: Tensor) -> Tensor:
        x = self.norm(x.permute(0, 2, 3, 1))
        return self.pwconv2(F.gelu(self.pwconv1(x))).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _fold_feed_forward(self) -> None:
        if self.gamma is None:
            return
        self.pwconv2.weight.mul_(self.gamma[:, None])
        self.pwconv2.bias.mul_(self.gamma)
        self.gamma = None


class GRNBlock(_MixerBlock):
    """Mixer, batch norm, squeeze-excitation, and two linear layers with GELU and GRN between: UniRepLKNet's block.

    ``switch_to_deploy`` replaces GRN's ``beta``, the second linear layer, the batch norm behind it and ``gamma`` by one
    linear layer with a bias. The first batch norm goes into a mixer that has ``absorb_norm`` and stays behind any
    other; the gates stay.

    Args:
        mixer: See ``_MixerBlock``; there is no norm behind an ``nn.Identity``.
        norm_layer: Makes a batch norm of so many channels.
    """

    def __init__(
        self, mixer: nn.Module, channels: int, norm_layer: NormFactory, *, deploy: bool = False, **kwargs
    ) -> None:
        super().__init__(mixer, channels, deploy=deploy, **kwargs)
        absorbed = deploy and hasattr(mixer, 'absorb_norm')
        self.norm = nn.Identity() if absorbed or isinstance(mixer, nn.Identity) else norm_layer(channels)
        self.se = SqueezeExcite(channels, channels // 4)
        self.pwconv1 = nn.Sequential(ToChannelsLast(), nn.Linear(channels, 4 * channels))
        self.act = nn.Sequential(nn.GELU(), GlobalResponseNorm(4 * channels, use_bias=not deploy))
        self.pwconv2 = nn.Sequential(nn.Linear(4 * channels, channels, bias=deploy), ToChannelsFirst())
        if not deploy:
            self.pwconv2.append(norm_layer(channels))
        self.reset_parameters()

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.pwconv2(self.act(self.pwconv1(self.se(self.norm(x)))))

    @torch.no_grad()
    def _fold_feed_forward(self) -> None:
        grn, linear = self.act[1], self.pwconv2[0]
        if grn.beta is None:
            return
        mixer = self.get_submodule(self.mixer_name)
        if hasattr(mixer, 'absorb_norm'):
            mixer.absorb_norm(self.norm)
            self.norm = nn.Identity()
        weight, bias = fuse_norm(linear.weight, linear.weight.double() @ grn.beta.double().flatten(), self.pwconv2[2])
        if self.gamma is not None:
            weight, bias = scale_outputs(weight, self.gamma), bias * self.gamma
        linear.weight.copy_(weight)
        linear.bias = nn.Parameter(bias.to(linear.weight), requires_grad=linear.weight.requires_grad)
        del self.pwconv2[2]
        self.gamma = grn.beta = None
