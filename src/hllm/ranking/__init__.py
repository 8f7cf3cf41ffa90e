"""Ranking scores given candidates for a history, with models that have heads."""
