"""Describing measures a data set before training: sizes, distributions, texts, and notes on what to look at."""
