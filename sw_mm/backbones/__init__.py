"""Backbones, one module for each family."""

from .shiftwise import ShiftWiseNet

__all__ = ['ShiftWiseNet']
