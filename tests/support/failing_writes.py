"""The command line of gptkit, in a process that fails while it writes its parts of the second checkpoint.

Arguments: ``full`` or ``kill``, the rank of the process, then those of gptkit.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from gptkit.checkpoint import joint
from gptkit.checkpoint.entries import OPTIMIZER
from gptkit.checkpoint.located import Located
from gptkit.cli.main import main

FAILS_AT = "step-00000020"


def fail(failure: str) -> None:
    if failure == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def run(failure: str, rank: str, *arguments: str) -> None:
    write_parts = joint.write_parts

    def write(file: Path, tensors: Mapping[str, Located], metadata: Mapping[str, str] | None = None) -> None:
        if FAILS_AT in file.parent.name and file.name == OPTIMIZER:
            fail(failure)
        write_parts(file, tensors, metadata)

    if os.environ["RANK"] == rank:
        joint.write_parts = write
    sys.argv[1:] = arguments
    main()


if __name__ == "__main__":
    run(*sys.argv[1:])
