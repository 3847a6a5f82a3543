_base_ = 'mmseg::_base_/datasets/ade20k.py'

# Multi-scale testing (`mim test mmseg CONFIG --tta`) enlarges the size of single-scale testing, as the papers do;
# mmsegmentation's own enlarges that of the file.
tta_pipeline = _base_.tta_pipeline
tta_pipeline[1].transforms[0] = [
    dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True) for ratio in _base_.img_ratios
]

# mmsegmentation's data set, which also says what is missing and where to get it.
dataset_type = 'sw_mm.ADE20KDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
