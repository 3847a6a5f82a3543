"""DeepLabV3+ with MobileNetV2, kernels of 9, on Cityscapes, 80k iterations on 4 GPUs x 2 images.

Official result (arXiv:2203.06717, section 3): 76.11 mIoU. The recipe is not published; this one is mmsegmentation's.
README.md says how to start from a classifier.
"""

_base_ = './deeplabv3plus_mobilenet-v2-k3_4xb2-80k_cityscapes-512x1024.py'

model = dict(backbone=dict(kernel_size=9))
