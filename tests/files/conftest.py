from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gptkit.core.errors import SpecError
from gptkit.files import Source, read

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return a function that writes a file and returns its path."""

    def to(text: str | bytes, name: str = "gpt.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to


@pytest.fixture
def load(write: Write) -> Callable[..., Source]:
    """Return a function that writes a file and reads it."""

    def of(text: str | bytes, name: str = "gpt.yaml", overrides: tuple[str, ...] = (), **options: object) -> Source:
        return read(write(text, name), overrides, **options)  # type: ignore[arg-type]

    return of


@pytest.fixture
def errors(tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that calls another, which must raise a `SpecError`, and returns the lines of the error."""

    def of(call: Callable[..., object], *arguments: object, **options: object) -> list[str]:
        with pytest.raises(SpecError) as caught:
            call(*arguments, **options)
        assert str(caught.value).count("\n") >= len(caught.value.problems) - 1
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return of
