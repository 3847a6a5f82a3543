"""SW-T with 20 % of its filters masked on ImageNet-1K, 300 epochs on 8 GPUs x 64 images x 8 accumulated steps.

Official result (arXiv:2401.12736, appendix C.2): 83.46 top-1.
"""

_base_ = '../sw_imagenet.py'

custom_hooks = _base_.custom_hooks
custom_hooks[0].sparsity = 0.2
