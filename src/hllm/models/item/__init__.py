"""Item tiers: what turns an item into a vector."""
