"""Scores for given candidates, by models with discriminative heads."""
