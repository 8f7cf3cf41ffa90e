"""Retrieval ranks the catalogue for histories: one question, one answer, whoever answers."""
