"""Describe a data set: sizes, distributions, texts and notes on what to look at."""
