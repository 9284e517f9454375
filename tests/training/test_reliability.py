"""Failures of trainings that the command line runs: one clear message, and intact checkpoints.

The table of docs/reliability.md names the tests of all failures; the last test here checks it.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from gptkit.checkpoint.store import CheckpointStore, read_state

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")

ROOT = Path(__file__).parents[2]
LONGEST = 600
"""Seconds after which a process is taken to hang; a machine that does other work, too, takes several times as long."""
SPEC = """\
name: failures
tokenizer: byte
model: {d_model: 16, n_layers: 1, context_length: 16, attention: {name: multi-head, n_heads: 2}}
data: {name: text, path: corpus.txt}
training:
  {steps: 100000, batch_size: 4, log_every: 5, checkpoint_every: 10, evaluate_every: null, sample_tokens: 0, device: cpu}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "spec.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "corpus.txt").write_text("the cat sat on the mat\n" * 300, encoding="utf-8")
    return tmp_path


GPTKIT = ("-m", "gptkit")
_started: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def _nothing_remains() -> Iterator[None]:
    """End the processes of a test that failed."""
    yield
    while _started:
        process = _started.pop()
        if process.poll() is None:
            process.kill()


def start(
    project: Path,
    *arguments: str,
    launcher: Sequence[str] = (sys.executable, *GPTKIT),
    limit: Callable[[], None] | None = None,
) -> subprocess.Popen[str]:
    """Start `gptkit train` in a process, in which closed terminals end it: these tests may have been started with nohup."""

    def prepare() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        if limit is not None:
            limit()

    process = subprocess.Popen(
        [*launcher, "train", "spec.yaml", "run", *arguments],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=prepare,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    _started.append(process)
    return process


def wait_for_checkpoint(project: Path, after: int = 0) -> int:
    """Wait for a checkpoint after a step, and return its step."""
    store = CheckpointStore(project / "run" / "checkpoints")
    end = time.monotonic() + LONGEST
    while time.monotonic() < end:
        steps = store.steps()
        if steps and steps[-1] > after:
            return steps[-1]
        time.sleep(0.05)
    raise AssertionError("no checkpoint")


def checked(project: Path) -> int:
    """Check the content of the newest checkpoint, and return its step."""
    latest = CheckpointStore(project / "run" / "checkpoints").latest()
    assert latest is not None
    return int(read_state(latest, verify=True)["step"])


def resumes(project: Path) -> None:
    """Check that the training continues in one process from its newest checkpoint and ends."""
    step = checked(project)
    done = start(project, "--resume", "--set", f"training.steps={step + 5}")
    output = done.communicate(timeout=LONGEST)[0]
    assert done.returncode == 0, output
    assert checked(project) == step + 5
    assert not list((project / "run" / "checkpoints").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_saves_a_checkpoint_of_the_last_step(project: Path, number: signal.Signals) -> None:
    process = start(project)
    wait_for_checkpoint(project)
    process.send_signal(number)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode == 130, output
    assert "continue with: gptkit train --resume run" in output
    assert f"after step {checked(project)} of" in output
    resumes(project)


@pytest.mark.slow
@pytest.mark.parametrize("signaled", [True, False])
def test_closed_terminal_loses_no_step(project: Path, signaled: bool) -> None:
    """A closed terminal sends SIGHUP, unless the training was started with nohup, and takes no more output."""
    window, terminal = pty.openpty()

    def in_session() -> None:
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL if signaled else signal.SIG_IGN)

    command = [sys.executable, *GPTKIT, "train", "spec.yaml", "run", "--set", "training.evaluate_every=5"]
    process = subprocess.Popen(
        [*command, "--set", "training.evaluate_batches=1"],
        cwd=project,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        preexec_fn=in_session,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    os.close(terminal)
    closing = threading.Event()
    reader = threading.Thread(target=read_until, args=(closing, window), daemon=True)
    reader.start()
    step = wait_for_checkpoint(project)
    closing.set()
    reader.join()
    os.close(window)
    if not signaled:
        step = wait_for_checkpoint(project, after=step + 20)
        process.terminate()
    assert process.wait(timeout=LONGEST) == 130
    assert checked(project) >= step
    resumes(project)


def read_until(closing: threading.Event, descriptor: int) -> None:
    """Read what is written to a terminal, as its window does."""
    while not closing.is_set():
        if select.select([descriptor], [], [], 0.1)[0]:
            os.read(descriptor, 1 << 16)


@pytest.mark.slow
def test_training_continues_when_nobody_reads_its_messages(project: Path) -> None:
    process = start(project, "--set", "training.evaluate_every=5")
    step = wait_for_checkpoint(project)
    assert process.stdout is not None
    process.stdout.close()
    wait_for_checkpoint(project, after=step + 20)
    process.terminate()
    assert process.wait(timeout=LONGEST) == 130
    resumes(project)


TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
"""Start of two processes, with a port that is free."""


@pytest.mark.slow
def test_killed_process_of_several_ends_the_others(project: Path) -> None:
    process = start(project, launcher=(*TORCHRUN, *GPTKIT))
    wait_for_checkpoint(project)
    victim = _of_rank(1, project)
    os.kill(victim, signal.SIGKILL)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode != 0
    messages = re.findall(r"error: (.*)", output)
    assert len(messages) == 1, output
    assert "lost the connection to another" in messages[0] or "connection to another process" in messages[0]
    assert "start all of them again with --resume" in output
    resumes(project)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_full_disk_while_all_processes_write_is_reported_once(project: Path, rank: int) -> None:
    process = start_failing(project, "full", rank)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode != 0
    messages = re.findall(r"error: (.*)", output)
    assert len(messages) == 1, output
    assert "the checkpoint cannot be written: No space left on device" in messages[0]
    assert "earlier checkpoints are intact" in output.replace("\n", " ")
    assert checked(project) == 10
    assert [path.name for path in (project / "run" / "checkpoints").iterdir()] == ["step-00000010"]
    resumes(project)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_process_killed_while_all_write_leaves_the_last_checkpoint(project: Path, rank: int) -> None:
    process = start_failing(project, "kill", rank)
    wait_for_checkpoint(project)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode != 0
    messages = re.findall(r"error: (.*)", output)
    assert len(messages) == 1, output
    assert "lost the connection to another" in messages[0] or "connection to another process" in messages[0]
    assert checked(project) == 10
    resumes(project)


def start_failing(project: Path, failure: str, rank: int) -> subprocess.Popen[str]:
    """Start a sharded training in two processes, one of which fails when it writes the checkpoint of step 20."""
    launcher = (*TORCHRUN, str(ROOT / "tests" / "support" / "failing_writes.py"), failure, str(rank))
    return start(project, "--set", "training.parallel.shard=2", launcher=launcher)


def _of_rank(rank: int, project: Path) -> int:
    """Return the process of a rank that runs in a directory."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            here = (entry / "cwd").readlink() == project
        except OSError:
            continue
        if here and f"RANK={rank}".encode() in environment:
            return int(entry.name)
    raise AssertionError("no such process")


@pytest.mark.slow
def test_full_disk_keeps_the_last_checkpoint(project: Path) -> None:
    assert start(project, "--set", "training.steps=20", "--quiet").wait(timeout=LONGEST) == 0
    size = (project / "run/checkpoints/step-00000020/model.safetensors").stat().st_size

    def limit() -> None:  # a write beyond the limit fails like one on a full disk
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, size - 1))

    process = start(project, "--resume", limit=limit)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode == 2, output
    assert "the checkpoint cannot be written" in output
    assert "earlier checkpoints are intact" in output.replace("\n", " ")
    assert checked(project) == 20
    resumes(project)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_directory_that_may_not_be_written_is_reported(project: Path) -> None:
    (project / "run").mkdir(mode=0o500)
    process = start(project)
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode == 2, output
    assert "Permission denied" in output
    assert list((project / "run").iterdir()) == []


@pytest.mark.slow
def test_damaged_checkpoint_is_named_and_an_earlier_one_can_be_used(project: Path) -> None:
    assert start(project, "--set", "training.steps=20", "--quiet").wait(timeout=LONGEST) == 0
    weights = project / "run/checkpoints/step-00000020/model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0xFF
    weights.write_bytes(content)
    process = start(project, "--resume")
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode == 2, output
    assert "model.safetensors" in output
    assert "step-00000020" in output
    assert (project / "run/checkpoints/step-00000010").is_dir()


@pytest.mark.slow
def test_loss_that_is_not_finite_ends_with_the_last_good_checkpoint(project: Path) -> None:
    process = start(project, "--set", "training.optimizer.learning_rate=1e30", "--set", "training.clip=null")
    output = process.communicate(timeout=LONGEST)[0]
    assert process.returncode == 2, output
    assert re.search(r"error: the (loss is|gradients are not finite)", output)
    assert "lower training.optimizer.learning_rate" in output.replace("\n", " ")


def test_every_test_of_the_table_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table, _, rest = text.partition("## Tests")
    pattern = re.compile(r"`(tests/\S+\.py)::(\w+)`")
    names, listed = pattern.findall(text), pattern.findall(rest.partition("\n## ")[0])
    assert len(listed) == len(re.findall(r"^\| ", table, re.MULTILINE)) - 2 > 15
    for file, name in names:
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{name}"
