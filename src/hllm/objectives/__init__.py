"""Objectives are what training minimises: functions from a model and a batch to a loss."""
