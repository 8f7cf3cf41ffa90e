"""Data goes from the caller's tables to datasets, splits, prompts and tokens, without tensors."""
