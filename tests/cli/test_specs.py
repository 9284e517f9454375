"""Commands about spec files: new, check, show, diff, schema."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import gptkit
from gptkit.presets.catalog import shipped
from gptkit.runs.opening import open_spec
from tests.support.command_line import Call

WRONG = """\
name: wrong
model:
  d_model: wide
  attention: {name: multi-head, n_heads: 4, qk_norm: rmss}
  positon: rotary
"""


# -- new -------------------------------------------------------------------------------------------------------------


def test_new_writes_a_spec_named_after_its_file_and_its_schema(call: Call, project: Path) -> None:
    Path("sub").mkdir()
    result = call("new", "sub/novel.yaml", "--from", "modern")
    text = (project / "sub/novel.yaml").read_text(encoding="utf-8")
    original = shipped()["modern"].read_text(encoding="utf-8")
    assert text == original.replace("\nname: modern\n", "\nname: novel\n")
    assert open_spec(project / "sub/novel.yaml").spec.name == "novel"
    schema = json.loads((project / "sub/gptkit.schema.json").read_text(encoding="utf-8"))
    assert "model" in schema["properties"]
    assert "sub/novel.yaml" in result.stdout


def test_new_names_the_file_after_the_preset_by_default(call: Call, project: Path) -> None:
    call("new", "--from", "book", "--no-schema")
    assert (project / "book.yaml").is_file()
    assert not (project / "gptkit.schema.json").exists()


def test_new_keeps_the_column_of_the_comment_beside_the_name(call: Call, project: Path) -> None:
    (original,) = re.findall(r"^name: tiny +(?=#)", shipped()["tiny"].read_text(encoding="utf-8"), re.MULTILINE)
    for stem in ("a", "much-longer"):
        call("new", f"{stem}.yaml", "--no-schema")
        (line,) = re.findall(r"^name: \S+ +(?=#)", (project / f"{stem}.yaml").read_text(encoding="utf-8"), re.MULTILINE)
        assert len(line) == len(original)


@pytest.mark.parametrize("stem", ["no", "a: b", "7", "ünï"])
def test_new_quotes_names_that_are_not_plain_yaml_strings(call: Call, project: Path, stem: str) -> None:
    call("new", f"{stem}.yaml", "--no-schema")
    assert open_spec(project / f"{stem}.yaml").spec.name == stem


def test_new_overwrites_only_if_forced(call: Call, project: Path) -> None:
    before = (project / "mini.yaml").read_text(encoding="utf-8")
    assert "--force" in call("new", "mini.yaml", code=2).stderr
    assert (project / "mini.yaml").read_text(encoding="utf-8") == before
    call("new", "mini.yaml", "--force", "--no-schema")
    assert (project / "mini.yaml").read_text(encoding="utf-8") != before


def test_new_lists_the_presets(call: Call, project: Path) -> None:
    assert "did you mean 'modern'?" in call("new", "--from", "modren", code=2).stderr
    assert "does not end in .yaml" in call("new", "mini.toml", code=2).stderr
    listed = call("new", "--list").stdout
    assert all(name in listed for name in shipped())
    assert sorted(path.name for path in project.iterdir()) == ["corpus.txt", "mini.yaml"]


def test_new_copies_the_preset_of_a_released_model(call: Call, project: Path) -> None:
    listed = call("new", "--list").stdout
    start, released = listed.split("released models")
    assert "tiny" in start
    assert ["qwen3-0.6b", "596", "M"] in [line.split()[:3] for line in released.splitlines()]
    call("new", "mine.yaml", "--from", "qwen3-0.6b", "--no-schema")
    text = (project / "mine.yaml").read_text(encoding="utf-8")
    assert "\nname: mine\n" in text
    assert "596,049,920 parameters" in text
    assert "28 layers" in call("check", "mine.yaml").stdout
    assert "596,049,920" in call("show", "mine.yaml").stdout


def test_new_says_how_to_train_every_preset(call: Call, project: Path) -> None:
    for name in shipped():
        if not name.startswith(("finetune", "tiny", "book", "gpt2")):
            continue
        result = call("new", f"{name}.yaml", "--from", name, "--no-schema")
        assert "created from preset" in result.stdout
        assert ("--init SOURCE" in result.stderr) == name.startswith("finetune"), result.stderr
        assert "warning" not in result.stderr


def test_show_lists_callbacks_and_trackers(call: Call, project: Path) -> None:
    text = call("show", "mini.yaml", "--set", "training.callbacks=[ema]", "--set", "training.trackers=[csv]").stdout
    assert re.search(r"^callbacks +ema", text, re.MULTILINE)
    assert re.search(r"^trackers +csv", text, re.MULTILINE)
    assert "callbacks" not in call("show", "mini.yaml").stdout


# -- check -----------------------------------------------------------------------------------------------------------


def test_check_reports_every_error_with_its_location(call: Call, project: Path) -> None:
    (project / "wrong.yaml").write_text(WRONG, encoding="utf-8")
    result = call("check", "wrong.yaml", code=2, env={"COLUMNS": "40"})
    lines = result.stderr.splitlines()
    assert [line.split(": ")[:2] for line in lines[:3]] == [
        ["wrong.yaml:3:12", "model.d_model"],
        ["wrong.yaml:4:54", "model.attention.qk_norm"],
        ["wrong.yaml:5:3", "model.positon"],
    ]
    assert "did you mean 'rms'?" in lines[1]
    assert lines[3:] == ["error: 3 errors in wrong.yaml"]
    assert result.stdout == ""


def test_check_of_a_valid_spec_is_one_line(call: Call, project: Path) -> None:
    result = call("check", "mini.yaml", "--set", "model.n_layers=2", "--set", "training.schedule.warmup_steps=1")
    line = result.stdout
    assert line.count("\n") == 1
    assert line.startswith("mini.yaml: valid: mini, 2 layers, width ")
    assert line.endswith(", context 16\n")
    assert not result.stderr


def test_check_reads_no_corpus(call: Call, project: Path) -> None:
    (project / "corpus.txt").unlink()
    assert "valid" in call("check", "mini.yaml", "--set", "tokenizer=char").stdout


def test_check_reports_an_invalid_override(call: Call, project: Path) -> None:
    result = call("check", "mini.yaml", "-s", "model.position=alibo", code=2)
    assert "--set model.position=alibo: model.position" in result.stderr


# -- show ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.device=gpu", "got the text 'gpu'; did you mean 'cuda'?"),
        ("training.precision=torch.bfloat16", "got the text 'torch.bfloat16'; did you mean 'bf16'?"),
        ("training.precision=half", "got the text 'half'\n"),  # gptkit has no such precision
        ("data=a.txt", "its path: {name: NAME, path: a.txt}, where NAME is one of: jsonl, prepared, text"),
        ("tokenizer=tok/tokenizer.json", "{name: NAME, path: tok/tokenizer.json}, where NAME is hugging-face"),
        ("model.norm=rms.x", "unknown norm 'rms.x'; did you mean 'rms'?"),
    ],
)
def test_check_names_what_a_value_means(call: Call, project: Path, override: str, message: str) -> None:
    assert message in call("check", "mini.yaml", "--set", override, code=2).stderr


def test_directory_with_a_spec_is_not_a_run(call: Call, project: Path) -> None:
    (project / "specs").mkdir()
    assert "Pass a run directory" in call("check", "specs", code=2).stderr
    (project / "specs" / "spec.yml").write_text((project / "mini.yaml").read_text())
    file = str(Path("specs", "spec.yml"))
    assert f"hint: It has a spec file: pass {file}, or a run that" in call("generate", "specs", "x", code=2).stderr


def test_show_resolved_is_a_spec_that_resolves_to_itself(call: Call, project: Path) -> None:
    text = call("show", "mini.yaml", "--resolved", "--set", "training.steps=7").stdout
    (project / "resolved.yaml").write_text(text, encoding="utf-8")
    spec = open_spec("resolved.yaml").spec
    assert spec == open_spec("mini.yaml", ["training.steps=7"]).spec
    assert call("show", "resolved.yaml", "--resolved").stdout == text


def test_show_as_json_agrees_with_the_model(call: Call, project: Path) -> None:
    data = json.loads(call("show", "mini.yaml", "--json").stdout)
    parameters = sum(parameter.numel() for parameter in gptkit.build("mini.yaml", device="meta").parameters())
    assert data["sizes"]["parameters"] == parameters
    assert data["sizes"]["cache_bytes_per_token"] == 2 * 16 * 4  # a key and a value of 16 features in fp32
    assert data["spec"]["model"]["attention"]["d_head"] == 8
    assert [layer["attention"]["n_heads"] for layer in data["layers"]] == [2]


@pytest.mark.parametrize("columns", ["60", "80"])
def test_show_lists_the_components_of_each_layer(call: Call, project: Path, columns: str) -> None:
    pattern = "model.layers=[{repeat: 2, attention: {window: 4}}, {position: none}]"
    result = call("show", "mini.yaml", "--set", pattern, "--set", "model.n_layers=6", "--tree", env={"COLUMNS": columns})
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    windowed, full = lines.index("0 to 1, 3 to 4"), lines.index("2, 5")
    assert "window 4" in " ".join(lines[windowed:full])
    assert "  position     none" in lines[full : full + 6]
    assert "parameters" in result.stdout
    assert "embedding: TokenEmbedding" in result.stdout
    assert "\x1b" not in result.stdout
    settings = lines[: lines.index("Tree")]
    assert max(map(len, settings)) <= int(columns)


def test_show_names_the_attention_backend_of_each_layer(call: Call, project: Path) -> None:
    pattern = "model.layers=[{}, {attention_backend: eager}, {linear: {name: dense}}]"
    layers = ("--set", "model.n_layers=3", "--set", pattern)
    lines = [line.strip() for line in call("show", "mini.yaml", *layers).stdout.splitlines()]
    assert {"0, 2", "1"} <= set(lines)
    first, second = lines.index("0, 2"), lines.index("1")
    assert any(line.split()[:2] == ["backend", "sdpa"] for line in lines[first:second])
    assert "eager  selected by the spec" in " ".join(lines[second : second + 9])
    data = json.loads(call("show", "mini.yaml", *layers, "--json").stdout)
    assert [layer["attention_backend"]["name"] for layer in data["layers"]] == ["sdpa", "eager", "sdpa"]
    assert data["spec"]["model"]["layers"][1]["attention_backend"] == {"name": "eager"}


def test_show_of_an_unknown_vocabulary_still_shows_the_layers(call: Call, project: Path) -> None:
    (project / "corpus.txt").unlink()
    result = call("show", "mini.yaml", "--set", "tokenizer=char")
    assert "unknown: the vocabulary size depends on a corpus" in result.stdout
    assert "multi-head" in result.stdout


def test_show_of_a_run_reads_the_saved_tokenizer_and_the_last_step(call: Call, run: Path) -> None:
    assert "step 3 of 3" in call("show", run).stdout


def test_show_rejects_a_directory_without_a_run(call: Call, project: Path) -> None:
    assert "is not a run" in call("show", ".", code=2).stderr


# -- diff ------------------------------------------------------------------------------------------------------------


def test_diff_names_paths_values_and_sizes(call: Call, project: Path) -> None:
    (project / "other.yaml").write_text(
        "extends: mini.yaml\nmodel: {d_model: 32, position: {name: alibi}}\nsampler: [greedy]\n", encoding="utf-8"
    )
    data = json.loads(call("diff", "mini.yaml", "other.yaml", "--json").stdout)
    assert data["spec"]["model.d_model"] == [16, 32]
    assert [side["name"] for side in data["spec"]["model.position"]] == ["rotary", "alibi"]
    assert data["spec"]["sampler.1"][1] is None
    assert "model.attention.n_heads" not in data["spec"]
    assert data["sizes"]["cache_bytes_per_token"] == [128, 256]
    text = call("diff", "mini.yaml", "other.yaml").stdout
    row = next(line.split() for line in text.splitlines() if line.startswith("model.position"))
    assert row == ["model.position", "rotary", "alibi"]


def test_diff_of_equal_specs_is_empty(call: Call, project: Path) -> None:
    assert call("diff", "mini.yaml", "mini.yaml").stdout == "no differences\n"


# -- schema ----------------------------------------------------------------------------------------------------------


def test_schema_is_the_same_on_stdout_and_in_a_file(call: Call, project: Path) -> None:
    text = call("schema").stdout
    assert "rotary" in text
    assert json.loads(text)["$schema"].startswith("https://json-schema.org/")
    call("schema", "--output", "s.json")
    assert (project / "s.json").read_text(encoding="utf-8") == text
    assert "cannot be written" in call("schema", "--output", "no/such/directory.json", code=2).stderr


def test_show_of_a_run_with_shapes_of_activations(call: Call, run: Path) -> None:
    wide = {"COLUMNS": "160"}
    lines = call("show", run, "--activations", env=wide).stdout.splitlines()
    start, end = lines.index("Shapes"), lines.index("Sizes")
    rows = {re.sub(r"[│├─└ ]*", "", line, count=1).split("  ")[0]: line for line in lines[start + 2 : end]}
    assert rows["qkv: Linear 16 → 48"].split()[-5:] == ["(48,", "16)", "(B,", "T,", "48)"]
    assert rows["logits"].split()[-3:] == ["(B,", "T,", "257)"]
    sized = call("show", run, "--activations", "--batch", "4", "--tokens", "9", env=wide).stdout
    assert "(4, 9, 48)" in sized
    data = json.loads(call("show", run, "--activations", "--json").stdout)
    assert data["activations"]["blocks.0.attention.qkv"] == "(B, T, 48)"


def test_show_prints_the_summary_last_and_long_trees_on_request(call: Call, project: Path) -> None:
    long = ["--set", "model.n_layers=24", "--set", "model.layers=[{attention: {window: 2}}, {}, {position: none}]"]
    result = call("show", "mini.yaml", *long)
    assert "Tree" not in result.stdout.splitlines()
    assert "module tree of" in result.stderr
    assert "Tree" in call("show", "mini.yaml", *long, "--tree").stdout.splitlines()
    for options in ([], ["--tree"], ["--activations"]):
        lines = call("show", "mini.yaml", *long, *options).stdout.splitlines()
        assert lines[-6] == "Sizes"
    assert "Tree" not in call("show", "mini.yaml", "--no-tree").stdout.splitlines()


def test_show_lists_linear_and_backend(call: Call, project: Path) -> None:
    lines = [line.split() for line in call("show", "mini.yaml").stdout.splitlines()]
    assert ["linear", "dense"] in lines
    assert any(line[:2] == ["backend", "sdpa"] for line in lines)


def test_diff_of_runs_shows_losses(call: Call, run: Path, project: Path) -> None:
    call("train", "mini.yaml", "other", "-q", "--set", "training.steps=5")
    data = json.loads(call("diff", run, "other", "--json").stdout)["training"]
    metrics = [gptkit.load(directory).metrics for directory in (run, "other")]
    assert data["step"] == [3, 5]
    assert data["tokens"] == [3 * 2 * 16, 5 * 2 * 16]
    for name in ("loss", "validation_loss"):
        assert data[name] == [each.last(name)[1] for each in metrics]  # type: ignore[index]
        assert data[f"lowest_{name}"] == [each.best(name)[1] for each in metrics]  # type: ignore[index]
    text = call("diff", run, "other").stdout
    assert f"{data['loss'][0]:.4f}" in text
    assert "lowest validation loss" in text
    same = call("diff", run, run).stdout
    assert "no differences between the specs" in same
    assert "last training loss" in same
    with_file = call("diff", run, "mini.yaml").stdout
    assert "–" in with_file
    assert "last training loss" in with_file
    assert "Training" not in call("diff", "mini.yaml", "mini.yaml").stdout
