"""Cuts divide interactions into training, validation and test in six ways: one file a kind, options beside the cut."""
