"""Training batches: tensors made of a dataset, its split and its tokens."""
