from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gptkit.core.errors import SpecError
from gptkit.files import Source, read

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file and return its path."""

    def to(text: str | bytes, name: str = "gpt.yaml") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return to


@pytest.fixture
def load(write: Write) -> Callable[..., Source]:
    """Write a file and read it."""

    def of(text: str | bytes, name: str = "gpt.yaml", overrides: tuple[str, ...] = (), **options: object) -> Source:
        return read(write(text, name), overrides, **options)  # type: ignore[arg-type]

    return of


@pytest.fixture
def errors(tmp_path: Path) -> Callable[..., list[str]]:
    """Call a function that must raise a `SpecError`; return its lines without the directory's name."""

    def of(call: Callable[..., object], *arguments: object, **options: object) -> list[str]:
        with pytest.raises(SpecError) as caught:
            call(*arguments, **options)
        assert str(caught.value).count("\n") >= len(caught.value.problems) - 1
        return [str(problem).replace(f"{tmp_path}/", "") for problem in caught.value.problems]

    return of
