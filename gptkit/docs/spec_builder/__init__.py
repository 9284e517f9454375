"""Page on which specs are composed in the browser, without a server.

Its scripts are plain files of this directory, joined with the registry's data into one, since pages that are opened from the
file system cannot load modules. They follow the Python code: ``outline.js`` and ``diagram.js`` are `gptkit.diagrams`,
``resolve.js``, ``check.js``, ``between.js`` and ``training.js`` the loading of a spec, and ``parameters.js`` the parameters
of a built model. Tests compare their results.
"""

from __future__ import annotations

import json
from importlib import resources

from gptkit.core.registry import Registry

__all__ = ["PAGE", "assets", "page"]

PAGE = "spec-builder.md"
_SCRIPTS = (
    *(
        "outline",
        "resolve",
        "names",
        "attentions",
        "parameters",
        "training",
        "between",
        "check",
        "diagram",
        "yaml",
        "form",
        "builder",
    ),
)
_SCRIPT, _STYLE = "assets/spec-builder.js", "assets/spec-builder.css"


def page(registry: Registry) -> str:
    """Return the page as Markdown; its script and style are `assets`."""
    return f"""\
---
hide: [navigation, toc]
---

# Spec builder

Compose a spec from the installed components: the diagram, the number of parameters, the errors and the YAML follow while
you type. Everything runs in this page; nothing is sent anywhere, and the address holds the spec, so a link shares it.
Choices that do not fit the others are disabled, with the reason.

<div id="gptkit-builder"><noscript>This page needs JavaScript.</noscript></div>
<link rel="stylesheet" href="{_STYLE}">
<script src="{_SCRIPT}"></script>

What only `gptkit check my.yaml` can find, since a page has no files and no Python:

- whether files exist and what they contain: a `hugging-face` tokenizer, a model to start from (`training.init_from`),
  installed distributions (`requires`);
- the rules of plugins' own components, and patterns of names (frozen parameters, groups, adapters) in a model that
  contains one;
- values that probably are unintended, such as a warmup longer than the training.

Errors in stages, mixtures and patterns of names are found here, too. The number of parameters is exact for gptkit's
components, with their adapters. It is not shown where a plugin's component or a vocabulary that depends on the corpus would
decide it; `gptkit show my.yaml` counts those too.
"""


def assets(registry: Registry) -> dict[str, str]:
    """Return the files of the page by path: one script with the registry's data, and one style sheet."""
    from gptkit.docs.spec_builder.data import builder_data

    directory = resources.files("gptkit.docs.spec_builder")
    # In a script, a text could otherwise end the element or, with two separators of lines, a string.
    data = json.dumps(builder_data(registry), ensure_ascii=False, separators=(",", ":"))
    data = data.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    scripts = [(directory / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS]
    script = "\n".join([f"window.gptkitBuilderData = {data};", *scripts])
    return {_SCRIPT: script, _STYLE: (directory / "builder.css").read_text(encoding="utf-8")}
