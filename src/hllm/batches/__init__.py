"""Batches are the tensors of a step, made of a dataset, its split and its tokens."""
