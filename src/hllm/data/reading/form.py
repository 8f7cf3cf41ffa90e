"""A form says how a text table is written, where its owner knows what cannot be found in the table itself."""

# Proved by tests/data/reading/test_delimited.py.

import codecs
from dataclasses import dataclass

from hllm.errors import ConfigError

_SPELT_OUT = {"\\t": "\t", "tab": "\t", "comma": ",", "semicolon": ";", "bar": "|", "blank": " "}


@dataclass(frozen=True)
class Form:
    """Separator, encoding and header of a text table; what is None is found in its first lines."""

    separator: str | None = None
    """Text between two fields; "tab" and "\\t" mean a tab. A table whose first line lacks it is read by its own."""
    encoding: str | None = None
    """Encoding of a table that is not UTF-8. None: its odd bytes are read as Western European, with a warning."""
    header: bool = True
    """True if the first line names the columns."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of a table without a header."""

    def __post_init__(self) -> None:
        if self.separator is not None:
            if not self.separator or '"' in self.separator or "\n" in self.separator or "\r" in self.separator:
                raise ConfigError(
                    f'separator is {self.separator!r}; expected the text between two fields, such as ";" or "tab"'
                )
            object.__setattr__(self, "separator", _SPELT_OUT.get(self.separator, self.separator))
        if self.encoding is not None:
            try:
                if not codecs.lookup(self.encoding)._is_text_encoding:
                    raise LookupError
            except LookupError:
                raise ConfigError(
                    f"encoding {self.encoding!r} is unknown; expected one such as utf-8, cp1252, utf-16 or shift_jis"
                ) from None
        if self.columns is not None and len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns are {', '.join(self.columns)}; give each column a name of its own")

    @property
    def has_header(self) -> bool:
        """Return whether the first line names the columns."""
        return self.header and self.columns is None


FOUND = Form()
"""All of it is found in the table."""
