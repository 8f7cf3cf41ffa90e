"""Tuning searches for better values of a recipe's keys, with equal budgets."""
