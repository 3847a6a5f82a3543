_base_ = './imagenet.py'

# Trained as at 224, tested on the whole image, warped to a square: the papers crop below 384 only.
train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 384
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(384, 384), backend='pillow', interpolation='bicubic'),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
