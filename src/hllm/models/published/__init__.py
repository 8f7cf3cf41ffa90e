"""Published weights are imported here: checkpoints of the authors of HLLM and others."""
