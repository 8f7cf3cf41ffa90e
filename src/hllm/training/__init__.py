"""Training turns a recipe and a dataset into a run: the loop, its steps, stages, optimizers and alarms."""
