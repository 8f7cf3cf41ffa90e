"""Six ways to divide interactions into training, validation and test: one file a kind, its options beside its cut."""
