"""The one door to a pre-trained language model, and what makes it fast."""
