"""The backbone is the one door to a pre-trained language model, with everything that makes it fast."""
