"""A run is a directory: recipe, dataset, position, checkpoints, tables and results."""
