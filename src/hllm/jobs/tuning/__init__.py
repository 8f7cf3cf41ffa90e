"""Tune a recipe: search for better values with equal budgets."""
