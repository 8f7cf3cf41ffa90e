"""Evaluation asks a retriever for the targets of a split and turns ranks into numbers under a stated protocol."""
