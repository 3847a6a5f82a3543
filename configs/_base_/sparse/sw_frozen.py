"""Fine-tuning of a sparsely trained SW: filters that are zero in the loaded weights stay so; norms and biases are free.

From dense weights, all of the net is trained.
"""

custom_hooks = [dict(type='sw_mm.SparseTrainingHook', granularity='filter', init='from_weights')]
