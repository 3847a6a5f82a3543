_base_ = 'mmseg::_base_/datasets/cityscapes_769x769.py'

# Multi-scale testing enlarges the size of single-scale testing, 2049 x 1025.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type='Resize', scale=(int(2049 * ratio), int(1025 * ratio)), keep_ratio=True) for ratio in _base_.img_ratios
]

# mmsegmentation's data set, which also says what is missing and where to get it.
dataset_type = 'sw_mm.CityscapesDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
