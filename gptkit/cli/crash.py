"""Report of an unexpected exception, which has a bug of gptkit or of a plugin as its cause."""

from __future__ import annotations

import traceback

from gptkit.cli.console import label, note
from gptkit.cli.origin import failing_plugin, involved_plugin, wrong_output

__all__ = ["report_crash"]

_OF_WRONG_VALUES = (TypeError, AttributeError, RuntimeError, ValueError, LookupError, AssertionError)
"""What code raises that uses a value of a wrong type or shape."""


def report_crash(error: Exception) -> bool:
    """Print an unexpected exception on stderr, with the plugin that caused it or takes part in it.

    Returns:
        Whether the cause is known: a component of a plugin returned a wrong value.
    """
    wrong = wrong_output(error) if isinstance(error, _OF_WRONG_VALUES) else None
    if wrong is not None:
        message, distribution = wrong
        label("error", "bold red", message)
        label("hint", "bold cyan", f"correct the component, then check it: gptkit plugin check {distribution}")
        return True
    last = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(error.__traceback__)
    origin = failing_plugin(error)
    if origin is not None:
        plugin, location = origin
        message = " ".join(last.split())
        label("error", "bold red", f"the plugin {plugin} failed: {message} ({location})")
        label("hint", "bold cyan", "report it to the plugin's authors, with the traceback that GPTKIT_DEBUG=1 shows")
        return False
    label("error", "bold red", "internal error: ", last)
    if frames:
        note(f"  at {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}")
    involved = involved_plugin(error)
    if involved is not None:
        plugin, name = involved
        note(f"  {name} of the plugin {plugin} takes part in it")
        check = f"gptkit plugin check {plugin.partition('==')[0]}"
        label(
            "hint",
            "bold cyan",
            f"check the plugin: {check}; if it passes, report it with the traceback that GPTKIT_DEBUG=1 shows",
        )
        return False
    hint = "please report it, with the output of `gptkit --version` and the traceback that GPTKIT_DEBUG=1 shows"
    label("hint", "bold cyan", hint)
    return False
