_base_ = './adamw_160k.py'

# RepLKNet's: one rate everywhere, no weight decay on norms (on other biases there is).
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
