"""Ranking a catalogue for a history."""
