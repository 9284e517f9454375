"""The allocator setting of `gptkit train` keeps freed memory in the process, and can be switched off."""

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from gptkit.training.allocator import keep_freed_memory

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

applied = keep_freed_memory()
before = resident()
memory = bytearray(200 << 20)
del memory
print(applied, resident() - before > 100 << 20)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting exists in glibc only")
@pytest.mark.parametrize(
    ("variables", "expected"),
    [({}, "True True"), ({"GPTKIT_ALLOCATOR": "system"}, "False False"), ({"MALLOC_ARENA_MAX": "4"}, "False False")],
)
def test_freed_memory_stays_in_the_process_unless_switched_off(variables: dict[str, str], expected: str) -> None:
    unset = {name: value for name, value in os.environ.items() if "MALLOC" not in name and name != "GPTKIT_ALLOCATOR"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=unset | variables, capture_output=True, text=True, check=True, timeout=600
    )
    assert result.stdout.strip() == expected
