_base_ = 'mmpretrain::_base_/datasets/imagenet_bs32.py'

# Training images are cropped and flipped, nothing more. The data set is mmpretrain's, which also says what is missing
# and where to get it.
dataset_type = 'sw_mm.ImageNet'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
