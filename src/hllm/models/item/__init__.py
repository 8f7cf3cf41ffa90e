"""Item tiers turn items into vectors: one file for each tier."""
