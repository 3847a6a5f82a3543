_base_ = 'mmseg::_base_/datasets/cityscapes.py'

# mmsegmentation's data set, which also says what is missing and where to get it.
dataset_type = 'sw_mm.CityscapesDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
