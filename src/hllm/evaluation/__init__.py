"""Protocols, baselines, metrics with intervals, and the report."""
