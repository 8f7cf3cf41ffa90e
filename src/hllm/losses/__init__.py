"""Losses take tensors and give one number, and say how to compute it in little memory."""
