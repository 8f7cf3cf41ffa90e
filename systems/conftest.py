"""The tiny language models of the tests, for the claims of the systems."""

from tests.conftest import tiny_bert, tiny_llama

__all__ = ["tiny_bert", "tiny_llama"]
