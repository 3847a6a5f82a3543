_base_ = './imagenet.py'

# RepLKNet-XL: 320 pixels, crops of 7/8 at the short side, and pixels from -1 to 1, not ImageNet's mean and deviation.
data_preprocessor = dict(mean=[127.5] * 3, std=[127.5] * 3)
train_pipeline = _base_.train_pipeline
train_pipeline[1].scale = 320
train_pipeline[3].hparams.pad_val = [128] * 3
train_pipeline[4].update(fill_color=[127.5] * 3, fill_std=[127.5] * 3)
test_pipeline = _base_.test_pipeline
test_pipeline[1].scale = int(320 / 224 * 256)
test_pipeline[2].crop_size = 320
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
