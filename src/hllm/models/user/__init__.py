"""User tiers turn a history of item vectors into user vectors: one file for each tier."""
