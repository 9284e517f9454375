"""The allocator settings of `gptkit train` keep freed memory in the process, let segments grow, and can be switched off."""

import os
import platform
import subprocess
import sys

import pytest

from gptkit.training import allocator
from gptkit.training.allocator import use_expandable_segments

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


@pytest.mark.skipif(platform.system() != "Linux", reason="torch has such segments on Linux only")
@pytest.mark.parametrize(
    ("torch_version", "given", "expected"),
    [
        ("2.13.0+cpu", {}, {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}),
        ("2.6.0", {}, {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}),
        ("2.13.0", {"GPTKIT_ALLOCATOR": "system"}, {}),
        ("2.13.0", {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}, {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"}),
    ],
)
def test_segments_on_a_gpu_can_grow_unless_they_are_set(
    torch_version: str, given: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("GPTKIT_ALLOCATOR", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")
    for name in names:
        monkeypatch.setenv(name, "")  # so that what the function sets is removed afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(allocator, "version", lambda _: torch_version)
    assert use_expandable_segments() == ("expandable_segments:True" in expected.values())
    assert {name: os.environ[name] for name in names[1:] if name in os.environ} == expected
