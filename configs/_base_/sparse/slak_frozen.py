"""Fine-tuning of a sparsely trained SLaK: weights of the backbone that are zero when loaded stay so; norms and biases
are free.

From dense weights, all of the net is trained.
"""

custom_hooks = [
    dict(
        type='sw_mm.SparseTrainingHook',
        granularity='weight',
        targets=[r'backbone\..+\.weight'],
        init='from_weights',
    )
]
