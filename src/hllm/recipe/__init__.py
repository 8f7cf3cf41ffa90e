"""A recipe says what a run is made of: data, split, model, stages and evaluation."""
