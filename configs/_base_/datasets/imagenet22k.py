_base_ = './imagenet.py'

# 21841 classes, training images only: there is no official validation split, and nothing is evaluated.
data_preprocessor = dict(num_classes=21841)
train_dataloader = dict(dataset=dict(type='sw_mm.ImageNet21k', data_root='data/imagenet21k'))
val_dataloader = None
val_evaluator = None
test_dataloader = None
test_evaluator = None
