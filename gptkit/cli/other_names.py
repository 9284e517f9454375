"""Options by the names that transformers, llama.cpp and others give them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["OUTPUT", "RESULT_ARGUMENTS", "own_options"]

OUTPUT = frozenset({"-o", "--out", "--output", "--output-dir", "--output_dir", "--outfile"})
"""Names of the option for the path of the result."""
RESULT_ARGUMENTS = frozenset({"eject", "export", "import", "train"})
"""Commands whose last argument is the path of the result."""

_SAMPLERS = {"temp": "temperature", "repeat-penalty": "repetition-penalty", "typical-p": "typical"}
_OPTIONS = {
    **dict.fromkeys(
        ("max-new-tokens", "max-length", "n-predict", "num-predict", "predict"), ("max_tokens", "--max-tokens {}", "N")
    ),
    "num-beams": ("decoding", "--decoding beam={}", "WIDTH"),
    "num-return-sequences": ("count", "--count {}", "N"),
    "prompt": ("prompts", "{}", "PROMPT"),
}


def own_options(arguments: Sequence[str], unknown: str, parameters: Collection[str]) -> str | None:
    """Return the options of gptkit for those of other programs on a command line; None if it has none for `unknown`.

    Args:
        arguments: the command line.
        unknown: the option that the command does not have.
        parameters: the names of the command's parameters.
    """
    if _own(unknown, "", parameters) is None:
        return None
    named = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option.startswith("--"):
            named.append(_own(option, value if equals else following, parameters))
    return " ".join(each for each in dict.fromkeys(named) if each is not None)


def _own(option: str, value: str, parameters: Collection[str]) -> str | None:
    from shlex import quote

    from gptkit.core.registry import default_registry

    name = option.removeprefix("--").replace("_", "-")
    given = "" if value.startswith("-") and not value[1:2].isdigit() else value
    if name in _OPTIONS:
        parameter, form, placeholder = _OPTIONS[name]
        return form.format(quote(given) if given else placeholder) if parameter in parameters else None
    sampler = _SAMPLERS.get(name, name)
    if "sampler" not in parameters or sampler not in default_registry().names("sampler"):
        return None
    return f"--sampler {sampler}" if sampler == "greedy" else f"--sampler {sampler}={quote(given) if given else 'VALUE'}"
