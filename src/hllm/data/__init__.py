"""From the caller's tables to batches: datasets, splits, prompts, tokens, windows."""
