"""Models are the two tiers, what joins them, and their checkpoints."""
