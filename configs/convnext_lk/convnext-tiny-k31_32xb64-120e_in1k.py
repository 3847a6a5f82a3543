"""ConvNeXt-T with kernels of 31 on ImageNet-1K, 120 epochs on 32 GPUs x 64 images.

The recipe is that of RepLKNet's study of kernel sizes (arXiv:2203.06717, section 5). On 8 GPUs,
`optim_wrapper.accumulative_counts=4` keeps the 2048 images an update.
"""

_base_ = [
    '../_base_/models/classifier.py',
    '../_base_/datasets/imagenet.py',
    '../_base_/schedules/imagenet_adamw_120e.py',
]

model = dict(
    backbone=dict(type='sw_mm.LargeKernelConvNeXt', arch='tiny', drop_path_rate=0.3),
    head=dict(in_channels=768),
)
train_dataloader = dict(batch_size=64)
