"""Sparse training as SW is published: 30 % of the small filters are masked, and the masks move every 100 updates."""

custom_hooks = [
    dict(
        type='sw_mm.SparseTrainingHook',
        sparsity=0.3,
        granularity='filter',
        targets='large_kernels',
        init='snip',
        growth='random',
        prune_rate=0.3,
        interval=100,
        # Every 131st time, the parallel filters are decided together.
        gap=131,
    )
]
