"""Wide SW-T, design v1, on ImageNet-1K, 120 epochs on 8 GPUs x 64 images x 8 accumulated steps.

An ablation: small kernels of 3, one path, four tables. With one path, this is the net of 48 M parameters and 7.7 G
multiply-adds.
"""

_base_ = './sw-v1-tiny-w1.3-k3-rep2-edge4_8xb64-accum8-120e_in1k.py'

model = dict(backbone=dict(num_paths=1))
