"""User tiers: what turns a history of item vectors into a user vector."""
