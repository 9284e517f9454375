"""Build and serve the documentation site with mkdocs, which the extra `docs` installs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from pathlib import Path

from gptkit.core.atomic import reading, write_text, writing
from gptkit.core.errors import GptkitError
from gptkit.docs.site import source

__all__ = ["build", "require_builder", "serve"]

_REQUIRED = ("mkdocs", "material", "mkdocstrings", "mkdocstrings_handlers.python")
_RECORD = ".gptkit-docs.json"
"""File in a built site that lists its files with their checksums: only these are replaced by a later build."""


def require_builder() -> None:
    """Check that the packages that build the site are installed.

    Raises:
        GptkitError: one is not; the message has the command that installs it.
    """
    missing = [module for module in _REQUIRED if not _installed(module)]
    if missing:
        raise GptkitError(
            f"the documentation requires {missing[0].partition('_handlers')[0]}, which is not installed",
            hint="pip install 'gptkit[docs]'",
        )


def _installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package above a submodule
        return False


def build(out: Path) -> Path:
    """Build the site of what is installed; return its first page.

    Args:
        out: directory of the site. An earlier site in it is replaced.

    Raises:
        GptkitError: the directory has files that gptkit did not write, a page has an invalid link, or mkdocs is missing.
        FileError: a file cannot be written.
    """
    require_builder()
    require_replaceable(out)
    with tempfile.TemporaryDirectory(prefix="gptkit-docs-") as scratch:
        built = Path(scratch) / "site"
        _mkdocs(built)
        require_replaceable(out)  # again: the build takes a minute
        _publish(built, out)
    return out / "index.html"


def require_replaceable(out: Path) -> None:
    """Check that a directory is absent, empty, or a site that gptkit built and nobody changed.

    Raises:
        GptkitError: it is something else.
    """
    remedy = "Choose another directory with --out, or move it."
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise GptkitError(f"{out} exists and is not a directory", hint=remedy)
    if not out.is_dir():
        return
    record = _record(out)
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if name == _RECORD or (path.is_dir() and not path.is_symlink()):
            continue
        if name not in record:
            raise GptkitError(f"{path} was not written by gptkit docs", hint=remedy)
        if path.is_symlink() or record[name] != _checksum(path):
            raise GptkitError(f"{path} has been changed since gptkit docs wrote it", hint=remedy)


def _record(out: Path) -> dict[str, str]:
    file = out / _RECORD
    if not file.is_file():
        return {}
    with reading(file):
        text = file.read_text(encoding="utf-8", errors="replace")
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return {}
    return {str(name): str(checksum) for name, checksum in data.items()} if isinstance(data, dict) else {}


def _checksum(file: Path) -> str:
    with reading(file):
        return hashlib.sha256(file.read_bytes()).hexdigest()


def _publish(built: Path, out: Path) -> None:
    """Copy a site to its directory. The record comes first, so that an interrupted copy can be repeated."""
    files = {path.relative_to(built).as_posix(): path for path in sorted(built.rglob("*")) if path.is_file()}
    earlier = _record(out)
    for name in earlier:
        with writing(out / name):
            (out / name).unlink(missing_ok=True)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    write_text(out / _RECORD, json.dumps({name: _checksum(path) for name, path in files.items()}, indent=0) + "\n")
    for name, path in files.items():
        target = out / name
        with writing(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    for directory in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        if not any(directory.iterdir()):
            directory.rmdir()


def _mkdocs(directory: Path) -> None:
    """Run mkdocs in strict mode: a warning, such as one of a link without a target, ends the build.

    Raises:
        GptkitError: mkdocs reported a problem.
    """
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands import build as command
    from mkdocs.config import load_config
    from mkdocs.exceptions import MkDocsException

    collected = _Warnings()
    logger = logging.getLogger("mkdocs")
    logger.addHandler(collected)
    try:
        root = source()
        config = load_config(str(root / "mkdocs.yml"), site_dir=str(directory), strict=True, hooks=[_HOOK])
        config.plugins.on_startup(command="build", dirty=False)
        try:
            command.build(config)
        finally:
            config.plugins.on_shutdown()
    except MkDocsException as error:
        lines = collected.lines or [str(error)]
        raise GptkitError("mkdocs reports:\n" + "\n".join(f"  {line}" for line in lines[:20])) from error
    finally:
        logger.removeHandler(collected)


_HOOK = str(Path(__file__).with_name("mkdocs_hook.py"))


class _Warnings(logging.Handler):
    """Logging handler that collects the warnings of a build."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def serve(address: str, *, open_in_browser: bool = False) -> None:
    """Serve the site until Ctrl-C. Pages are built again when a file of the documentation or of gptkit changes.

    Args:
        address: ``HOST:PORT``.
        open_in_browser: open the first page in the browser.
    """
    require_builder()
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")
    from mkdocs.commands import serve as command

    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    command.serve(
        str(source() / "mkdocs.yml"),
        watch=[str(Path(__file__).resolve().parents[1])],
        dev_addr=address,
        hooks=[_HOOK],
        open_in_browser=open_in_browser,
    )
