"""Wide SW-T, design v1, on ImageNet-1K, 120 epochs on 8 GPUs x 64 images x 8 accumulated steps.

An ablation: small kernels of 5, two paths, one table. Known second-hand: 81.52 top-1.
"""

_base_ = './sw-v1-tiny-w1.3-k3-rep2-edge4_8xb64-accum8-120e_in1k.py'

model = dict(backbone=dict(small_kernel=5, num_edges=1))
