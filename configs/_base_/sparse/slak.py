"""Sparse training as SLaK-T is published: 40 % of all weights are masked, and the masks move every 2000 updates.

SLaK-S and SLaK-B take ``prune_rate=0.3, interval=100``.
"""

custom_hooks = [
    dict(
        type='sw_mm.SparseTrainingHook',
        sparsity=0.4,
        granularity='weight',
        targets='all',
        init='snip',
        growth='random',
        prune_rate=0.5,
        interval=2000,
    )
]
