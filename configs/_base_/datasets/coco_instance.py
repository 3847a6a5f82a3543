_base_ = 'mmdet::_base_/datasets/coco_instance.py'

# mmdetection's data set, which also says what is missing and where to get it.
dataset_type = 'sw_mm.CocoDataset'
train_dataloader = dict(dataset=dict(type=dataset_type))
val_dataloader = dict(dataset=dict(type=dataset_type))
test_dataloader = val_dataloader
