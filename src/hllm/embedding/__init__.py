"""Embedding turns items and users into vectors and keeps them in tables."""
