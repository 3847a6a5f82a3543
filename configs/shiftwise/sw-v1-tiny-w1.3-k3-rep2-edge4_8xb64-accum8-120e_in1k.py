"""Wide SW-T, design v1, on ImageNet-1K, 120 epochs on 8 GPUs x 64 images x 8 accumulated steps.

An ablation: small kernels of 3, two paths, four tables. Known second-hand: 81.82 top-1, and 81.94 with another initial
sparsity.
"""

_base_ = './sw-tiny_8xb64-accum8-120e_in1k.py'

# As wide as SLaK-T, which the ablations start from.
model = dict(backbone=dict(arch='v1-tiny', width_factor=1.3), head=dict(in_channels=998))
