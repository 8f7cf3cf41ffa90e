"""`python -m hllm` is the `hllm` command."""

import sys

from hllm.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
