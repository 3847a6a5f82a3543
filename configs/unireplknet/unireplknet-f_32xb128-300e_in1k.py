"""UniRepLKNet-F on ImageNet-1K, 300 epochs on 32 GPUs x 128 images.

Official result (https://github.com/AILab-CVPR/UniRepLKNet): 78.6 top-1. On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 4096 images an update.
"""

_base_ = './unireplknet-t_32xb128-300e_in1k.py'

# Small nets are mixed less.
model = dict(
    backbone=dict(arch='f', drop_path_rate=0.0),
    head=dict(in_channels=384),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.3), dict(type='CutMix', alpha=0.3)]),
)
