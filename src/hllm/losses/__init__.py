"""Losses: tensors in, one number out."""
