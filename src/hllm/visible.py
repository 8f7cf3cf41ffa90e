"""Visible text has control characters as escapes, so that titles, ids and names cannot steer a terminal."""

# Proved by tests/cli/test_terminal.py.

# C0 but for line ends and tabs, DEL, C1; and those that turn the direction of what follows.
_HIDDEN = [
    *range(0x20),
    *range(0x7F, 0xA0),
    0x200E,
    0x200F,
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
]
_ESCAPES = {code: f"\\u{code:04x}" for code in _HIDDEN if chr(code) not in "\n\t"}


def visible(text: str) -> str:
    """Return text with its control characters as escapes, as JSON has them; line ends and tabs stay."""
    return text.translate(_ESCAPES)
