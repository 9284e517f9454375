"""Commands and options by the names that other programs, and other commands of gptkit, give them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["VERBS", "is_input", "names_result", "own_options"]

VERBS = {
    **dict.fromkeys(("talk", "ask", "converse", "conversation", "repl", "interactive"), "chat RUN"),
    **dict.fromkeys(("sample", "run", "infer", "complete", "predict", "inference"), 'generate RUN "A prompt"'),
    **dict.fromkeys(("eval", "score", "perplexity"), "evaluate RUN"),
    **dict.fromkeys(("test", "tests", "conformance"), "plugin check NAME"),
    **dict.fromkeys(("benchmark", "profile", "measure"), "bench FILE"),
    **dict.fromkeys(("convert", "load", "pull", "download"), "import PATH"),
    "save": "export RUN",
    **dict.fromkeys(("quantise", "compress"), "quantize RUN"),
    **dict.fromkeys(("info", "summary", "describe", "print", "config", "params"), "show FILE|RUN"),
    **dict.fromkeys(("attention", "lens", "surprise", "explain"), 'inspect RUN --text "A text"'),
    **dict.fromkeys(("tree", "modules", "layers"), "show FILE|RUN --tree"),
    **dict.fromkeys(("shapes", "activations"), "show FILE|RUN --activations"),
    **dict.fromkeys(("validate", "lint", "verify"), "check FILE"),
    **dict.fromkeys(("api", "server"), "serve RUN"),
    **dict.fromkeys(("gui", "playground", "ui", "web"), "play RUN"),
    **dict.fromkeys(("estimate", "memory", "cost"), "plan FILE --gpus N"),
    **dict.fromkeys(("hyperparameters", "optimize", "tune"), "search FILE --range PATH=LOW..HIGH"),
    **dict.fromkeys(("curves", "dashboard", "plot"), "runs"),
    **dict.fromkeys(("doc", "documentation", "manual"), "docs build"),
    **dict.fromkeys(("init", "create", "start"), "new FILE"),
    **dict.fromkeys(("list", "ls", "kinds"), "components"),
    **dict.fromkeys(("resume", "continue"), "train --resume RUN"),
    **dict.fromkeys(("finetune", "fine-tune", "adapt"), "train FILE --init RUN"),
    **dict.fromkeys(("prepare", "preprocess", "tokenize", "tokenise"), "data prepare FILE"),
    **dict.fromkeys(("families", "models", "preset", "presets", "templates", "zoo"), "new --list"),
    **dict.fromkeys(("fit", "pretrain", "learn"), "train FILE"),
    **dict.fromkeys(("ablate", "ablation", "sweep", "experiment", "grid"), "compare FILE --vary PATH=VALUE,VALUE"),
    "version": "--version",
    "help": "--help",
}
"""Commands by the verbs that other programs use for them."""

_OUTPUT = frozenset({"-o", "--out", "--output", "--output-dir", "--output_dir", "--outfile"})
"""Names of the option for the path of the result."""
_WITH_RESULT = frozenset({"eject", "export", "import", "train"})
"""Commands whose last argument is the path of the result."""
_OF_RUNS = frozenset(
    {"checkpoint-dir", "ckpt-dir", "exp-name", "experiment-name", "log-dir", "logdir", "name", "out-dir", "run-dir"}
    | {"run", "run-name", "save", "save-dir", "save-path", "work-dir"}
)
"""Further names of the option for the directory that a training writes."""
_INPUT = frozenset(
    {"c", "cfg", "checkpoint", "checkpoint-path", "ckpt", "ckpt-path", "config", "config-file", "config-path", "f", "file"}
    | {"i", "input", "m", "model", "model-dir", "model-name-or-path", "model-path", "path", "run", "run-dir", "spec"}
    | {"spec-file", "yaml"}
)
"""Names of the option for the path that a command reads, which is the first argument here."""

_SAMPLERS = {"temp": "temperature", "repeat-penalty": "repetition-penalty", "typical-p": "typical"}
_TOKENS = (
    "length",
    "max-new-tokens",
    "max-length",
    "n-predict",
    "n-tokens",
    "num-predict",
    "num-tokens",
    "predict",
    "tokens",
)
_FORCE = ("clobber", "force", "overwrite", "replace")
_CORPUS = frozenset({"corpus", "data", "data-dir", "data-path", "dataset", "text", "train-data", "train-file"})
"""Names of the option for the corpus of a training."""
_OPTIONS: dict[tuple[str, str, str], tuple[str, ...]] = {
    ("calibration", "--calibration {}", "FILE"): ("calibration-data", "calibration-file"),
    ("count", "--count {}", "N"): ("n", "n-samples", "num-return-sequences", "num-samples", "samples"),
    ("data", "--data {}", "FILE"): ("corpus", "dataset", "eval-data", "file", "input-file", "path", "text-file", "texts"),
    ("decoding", "--decoding beam={}", "WIDTH"): ("beams", "num-beams"),
    ("format", "--from {}", "FORMAT"): ("format", "source-format", "type"),
    ("force", "--force", ""): _FORCE,
    ("gpu", "--gpu {}", "NAME"): ("device", "gpu-name", "gpu-type"),
    ("gpus", "--gpus {}", "N"): ("devices", "n-gpus", "num-gpus", "processes", "world-size"),
    ("init", "--init {}", "RUN"): ("from-pretrained", "init-from", "pretrained", "weights"),
    ("jobs", "--jobs {}", "N"): ("n-jobs", "num-workers", "parallel", "processes", "workers"),
    ("max_tokens", "--max-tokens {}", "N"): _TOKENS,
    ("overwrite", "--overwrite", ""): _FORCE,
    ("precision", "--precision int{}", "BITS"): ("bits", "n-bits"),
    ("precision", "--precision {}", "NAME"): ("dtype", "quant", "quantization", "quantize", "torch-dtype"),
    ("precision", "--precision int4", ""): ("load-in-4bit",),
    ("precision", "--precision int8", ""): ("load-in-8bit",),
    ("prompts", "- < {}", "FILE"): ("f", "file", "i", "input", "input-file", "prompt-file", "prompts-file"),
    ("prompts", "{}", "PROMPT"): ("p", "prompt", "text"),
    ("quiet", "--quiet", ""): ("no-progress", "silent"),
    ("ranges", "--range {}", "PATH=LOW..HIGH"): ("param", "space", "vary"),
    ("resume", "--resume", ""): ("continue", "resume-from", "resume-from-checkpoint"),
    ("seeds", "--seeds {}", "N"): ("n-seeds", "num-seeds", "repeats"),
    ("listed", "--list", ""): ("list-presets", "presets"),
    ("start", "--from {}", "PRESET"): ("base", "like", "preset", "template"),
    ("stop", "--stop {}", "TEXT"): ("stop-sequence", "stop-sequences", "stop-string", "stop-word"),
    ("system", "--system {}", "TEXT"): ("system-message", "system-prompt"),
    ("text", "--text {}", "TEXT"): ("prompt", "input-text"),
    ("to", "--to {}", "FORMAT"): ("export-format", "format", "outtype", "target"),
    ("trials", "--trials {}", "N"): ("budget", "max-trials", "n-trials"),
    ("vary", "--vary {}", "PATH=VALUE,VALUE"): ("grid", "param", "range", "sweep"),
    ("workers", "--workers {}", "N"): ("jobs", "num-proc", "num-workers", "processes", "threads"),
}
"""Names elsewhere by the parameter of a command, with the option as it is written here and the name of its value."""


def is_input(option: str, parameters: Collection[str]) -> bool:
    """Whether an unknown option names the path that a command reads, unless it is an option of another name here."""
    own = _own(option, "", parameters)
    return _name(option) in _INPUT and (own is None or own.startswith("--set"))


def names_result(option: str, command: str) -> bool:
    """Whether an unknown option names the path of a command's result, which is its last argument."""
    return command in _WITH_RESULT and (option in _OUTPUT or (command == "train" and _name(option) in _OF_RUNS))


def own_options(
    arguments: Sequence[str], unknown: str, parameters: Collection[str], known: Collection[str] = ()
) -> str | None:
    """Return the options of gptkit for those of other programs on a command line; None if it has none for `unknown`.

    Args:
        arguments: the command line.
        unknown: the option that the command does not have.
        parameters: the names of the command's parameters.
        known: the options that the command has, which stay as they are.
    """
    if _own(unknown, "", parameters) is None:
        return None
    named = []
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, equals, value = argument.partition("=")
        if option == unknown or (option.startswith("--") and option not in known):
            named.append(_own(option, value if equals else following, parameters))
    return " ".join(each for each in dict.fromkeys(named) if each is not None)


def _name(option: str) -> str:
    return option.lstrip("-").replace("_", "-").casefold()


def _own(option: str, value: str, parameters: Collection[str]) -> str | None:
    from shlex import quote

    from gptkit.core.registry import default_registry

    name = _name(option)
    given = quote(value) if value and (not value.startswith("-") or value[1:2].isdigit()) else ""
    for (parameter, form, placeholder), others in _OPTIONS.items():
        if parameter in parameters and name in others:
            return form.format(given or placeholder)
    sampler = _SAMPLERS.get(name, name)
    if "sampler" in parameters and sampler in default_registry().names("sampler"):
        return f"--sampler {sampler}" if sampler == "greedy" else f"--sampler {sampler}={given or 'VALUE'}"
    return _field(name, given) if "overrides" in parameters else None


def _field(name: str, given: str) -> str | None:
    """Return the override for an option that names a field of a spec: ``--set training.steps=10`` for ``--steps 10``."""
    from gptkit.core.registry import default_registry
    from gptkit.files.elsewhere import EPOCHS, Section, fields_of
    from gptkit.runs.spec import ExperimentSpec

    if name in _CORPUS:
        return f"--set data.path={given or 'FILE'}"
    if name.replace("-", "_") in EPOCHS:
        return "--set training.steps=N"
    paths = [name] if name in ExperimentSpec.model_fields else []
    paths = paths or fields_of(name, Section((), ExperimentSpec, {"model": {}}), default_registry())
    return " or ".join(f"--set {path}={given or 'VALUE'}" for path in paths) or None
