import ctypes
import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from hllm.cli.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    b"x" * 2**26  # 64 MB in small pages; numpy may ask for huge ones
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str, **environment: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True, env=os.environ | environment
    )
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this malloc is not glibc's")
def test_large_arrays_are_made_of_the_pages_of_those_before():
    given_back = page_faults("as it is")
    assert page_faults("keep") < given_back / 5
    assert page_faults("keep", MALLOC_ARENA_MAX="8") > given_back / 2, "what the user has set stays"
