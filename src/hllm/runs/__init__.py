"""The run directory: recipe, position, checkpoints, tables and results."""
