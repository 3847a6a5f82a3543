"""SLaK-T with strips 7 pixels wide on ImageNet-1K, 120 epochs on 32 GPUs x 128 images.

The paper finds 5 best (arXiv:2207.03620, section 4). 40 % of the weights are zero and move. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './slak-tiny_32xb128-120e_in1k.py'

model = dict(backbone=dict(small_kernel=7))
