"""DeepLabV3+ with MobileNetV2, kernels of 3, on Cityscapes, 80k iterations on 4 GPUs x 2 images.

Official result (arXiv:2203.06717, section 3): 72.31 mIoU. The recipe is not published; this one is mmsegmentation's.
README.md says how to start from a classifier.
"""

# mmsegmentation's MobileNetV2 at an eighth of the image, with another backbone.
_base_ = 'mmseg::mobilenet_v2/mobilenet-v2-d8_deeplabv3plus_4xb2-80k_cityscapes-512x1024.py'
custom_imports = dict(imports=['sw_mm.registry'])

model = dict(
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='sw_mm.LargeKernelMobileNetV2',
        kernel_size=3,
        output_stride=8,
        out_indices=(0, 1, 2, 3),
        norm_cfg=dict(type='SyncBN', requires_grad=True),
    ),
)

dataset_type = 'sw_mm.CityscapesDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
default_hooks = dict(checkpoint=dict(type='sw_mm.AtomicCheckpointHook'))
auto_scale_lr = dict(enable=False, base_batch_size=8)
