"""Foreign weights: checkpoints that the authors of HLLM and others published."""
