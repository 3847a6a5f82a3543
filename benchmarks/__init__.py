"""What the kernels cost: compiled ahead of time for GPUs, and timed on the machine at hand. See README.md."""
