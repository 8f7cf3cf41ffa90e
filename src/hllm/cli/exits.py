"""Exit codes say how a verb ended; 0 is success."""

# Proved by tests/cli/test_main.py.

EXIT_FAILURE = 1
EXIT_WRONG_INPUT = 2
EXIT_SIGNAL = 128
"""Plus the signal's number."""
