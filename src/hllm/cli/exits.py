"""Exit codes say how a verb ended; 0 is success."""

EXIT_FAILURE = 1
EXIT_WRONG_INPUT = 2
EXIT_SIGNAL = 128
"""Plus the signal's number."""
