"""Recipes, the loop, and a run's directory."""
