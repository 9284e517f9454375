"""The form of written sources: templates, constants and parameters, formatting."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from gptkit.ejection.groups import Constant
from gptkit.ejection.heading import settings_source
from gptkit.ejection.joining import joined, separate
from gptkit.ejection.lines import typed, wrapped
from gptkit.ejection.writing import construct_blocks, write_source
from gptkit.kinds.written import Setting, Written, fill
from gptkit.runs.opening import open_spec
from tests.support.ejected import presets_written_and_refused


def source(name: str) -> str:
    model = open_spec(name).spec.model
    return write_source(model, model.vocab_size or 50257, name=name, parameters=1)


def test_conditions_of_templates() -> None:
    template = "#if a\none\n#if not b\ntwo $c\n#end\n#elif b\nthree\n#else\nfour\n#end\nfive"
    assert fill(template, a=True, b=False, c="x") == "one\ntwo x\nfive\n"
    assert fill(template, a=False, b=True, c="x") == "three\nfive\n"
    assert fill(template, a=False, b=False, c="x") == "four\nfive\n"
    with pytest.raises(ValueError, match="unknown condition 'a'"):
        fill(template)
    with pytest.raises(ValueError, match="without #end"):
        fill("#if a\n", a=True)
    with pytest.raises(ValueError, match="#end without #if"):
        fill("#end\n")


def test_long_lines_are_broken_as_a_formatter_does() -> None:
    call = "        y = function(" + ", ".join(f"argument_{index}" for index in range(7)) + ")"
    assert wrapped(call)[0] == "        y = function("
    assert len(wrapped(call)) == 3
    signature = "    def __init__(" + ", ".join(f"argument_{index}: int" for index in range(7)) + ") -> None:"
    assert [line.strip() for line in wrapped(signature)][1:3] == ["argument_0: int,", "argument_1: int,"]


def test_comprehensions_sums_and_calls_of_results_are_broken() -> None:
    norms = [f"norm_{index}=LayerNorm()" for index in range(5)]
    assert wrapped(f"    self.blocks = nn.ModuleList(Block({', '.join(norms)}) for _ in range(N_LAYERS))") == [
        "    self.blocks = nn.ModuleList(",
        "        Block(",
        *(f"            {norm}," for norm in norms),
        "        )",
        "        for _ in range(N_LAYERS)",
        "    )",
    ]
    product = " * ".join(["N_STATES_OF_A_HEAD"] * 4)
    assert wrapped(f"    self.split = nn.Linear(D_MODEL, {product} + d_conv + N_STATES_OF_A_HEAD)") == [
        "    self.split = nn.Linear(",
        "        D_MODEL,",
        f"        {product}",
        "        + d_conv",
        "        + N_STATES_OF_A_HEAD,",
        "    )",
    ]
    assert wrapped(f"    y = (torch.cat(({product}, {product[:30]}))).to(a_type_with_a_long_name)")[0] == "    y = ("


def test_broken_statements_keep_their_meaning() -> None:
    names = [f"a_rather_long_name_{index}" for index in range(5)]
    statements = (
        f"parts = torch.cat([part + ({names[0]}[i + 1].mean() if i else {names[1]}) for i, part in {names[2]}], 2)",
        f"raise ValueError(f'{{{names[0]}}} is not (a multiple, of {{{names[1]}}}; choose {{{names[2]}}}, or a, b, c')",
        f"chosen = sorted({names[0]}, key=lambda first, second=({names[1]}, {names[2]}): first + second + {names[3]})",
    )
    for statement in statements:
        assert len(statement) > 100
        assert ast.dump(ast.parse("\n".join(wrapped(statement)))) == ast.dump(ast.parse(statement))
    assert all(len(line) <= 100 for statement in statements[:1] for line in wrapped(statement))


def test_comment_of_a_long_constant_is_above_it() -> None:
    comment = "initial factor of what depends on the token in the weights of streams"
    short, long = (Constant("STREAM_GATE", value, comment, "block") for value in (0.01, 5.960464477539063e-8))
    assert settings_source({}, [short]) == f"STREAM_GATE = 0.01  # {comment}\n"
    assert settings_source({}, [long]) == f"# {comment}\nSTREAM_GATE = 5.960464477539063e-8\n"
    texts = Constant("TEXTS", tuple(f"text {index}" for index in range(20)), comment, "block")
    assert max(map(len, settings_source({}, [texts]).splitlines())) <= 100


def test_long_values_get_parentheses() -> None:
    names = [f"self.number_of_things_{index}" for index in range(5)]
    assert wrapped(f"        a, b = {' * '.join(names[:3])}, {' * '.join(names[3:])}") == [
        "        a, b = (",
        f"            {' * '.join(names[:3])},",
        f"            {' * '.join(names[3:])},",
        "        )",
    ]
    assert wrapped(f"    x = {' + '.join(names)}  # a sum") == [
        "    # a sum",
        "    x = (",
        f"        {names[0]}",
        *(f"        + {name}" for name in names[1:]),
        "    )",
    ]


def test_long_comments_are_broken() -> None:
    lines = wrapped("        # " + "word(s) " * 20)
    assert all(line.startswith("        # word(s)") and len(line) <= 100 for line in lines)


def test_long_docstrings_are_broken() -> None:
    text = "word " * 25
    lines = wrapped(f'    """{text.strip()}."""')
    assert lines[0].startswith('    """word word')
    assert lines[-1] == '    """'
    assert max(map(len, lines)) <= 100


def test_equal_settings_are_constants_and_different_ones_parameters() -> None:
    text = source("gemma3-1b")
    assert "\nD_HEAD = 256" in text
    assert "WINDOW =" not in text
    assert "            if layer % 6 == 5:\n" in text
    assert "Block(attention=Attention(rotary_base=10000.0, window=512))" in text
    assert "self.q_norm = RMSNorm(dim=D_HEAD)" in text
    assert "softcap" not in text


def test_long_irregular_patterns_of_layers_are_a_text() -> None:
    regular = construct_blocks(["A()", "B()"] * 40)
    assert regular[1:3] == ["for layer in range(N_LAYERS):", "    if layer % 2 == 0:"]
    layers = ["A()", "B()"] * 30 + ["C()"]
    assert construct_blocks(layers) == [
        "self.blocks = nn.ModuleList()",
        f'pattern = "{"ab" * 30}c"',
        "for kind in pattern:",
        '    if kind == "c":',
        "        self.blocks.append(C())",
        '    elif kind == "a":',
        "        self.blocks.append(A())",
        "    else:",
        "        self.blocks.append(B())",
    ]


def test_layers_of_many_forms_are_built_from_the_forms_of_their_parts() -> None:
    layers = [
        f"Block(is_first={layer == 0}, attention={attention}(window=5), feedforward={fed}, width=3)"
        for layer, (attention, fed) in enumerate(zip("ABABAB", ("F()", "F()", "G()", "F()", "F()", "F()"), strict=True))
    ]
    assert construct_blocks(layers) == [
        "self.blocks = nn.ModuleList()",
        "for layer in range(N_LAYERS):",
        "    attention = A(window=5) if layer % 2 == 0 else B(window=5)",
        "    feedforward = G() if layer == 2 else F()",
        "    self.blocks.append(",
        "        Block(is_first=layer == 0, attention=attention, feedforward=feedforward, width=3)",
        "    )",
    ]


def test_truth_values_that_divide_equal_layers_are_conditions() -> None:
    layers = [f"Block(attention=A(size={layer % 2}, reuses_kv={layer >= 4}))" for layer in range(6)]
    assert construct_blocks(layers) == [
        "self.blocks = nn.ModuleList()",
        "for layer in range(N_LAYERS):",
        "    if layer % 2 == 0:",
        "        attention = A(size=0, reuses_kv=layer >= 4)",
        "    else:",
        "        attention = A(size=1, reuses_kv=layer >= 4)",
        "    self.blocks.append(Block(attention=attention))",
    ]
    irregular = [f"Block(attention=A(sparse={layer in (0, 1, 3, 6, 10, 15, 21)}))" for layer in range(30)]
    assert construct_blocks(irregular)[1:] == [
        "for layer in range(N_LAYERS):",
        "    sparse = layer in (0, 1, 3, 6, 10, 15, 21)",
        "    self.blocks.append(Block(attention=A(sparse=sparse)))",
    ]


TEMPLATE = fill("""
def $class_name(x: Tensor$parameters) -> Tensor:
    #if $SHARP
    x = $SHARPNESS * x
    #else
    x = -x
    #end
    #if not $SHARP
    x = $other(x)
    #end
    return x
""")


def use_of(sharp: bool) -> Written:
    settings = {"SHARP": Setting(sharp), "SHARPNESS": Setting(2.0)}
    parts = {"other": Written("other", "def $class_name(x: Tensor) -> Tensor:\n    return x\n")}
    return Written("sharpen", TEMPLATE, settings=settings, parts=parts)


def test_conditions_on_settings_are_decided_where_all_uses_agree() -> None:
    (alone,) = joined([use_of(True)])
    assert alone.text.splitlines()[1:] == ["    x = $SHARPNESS * x", "    return x"]
    assert not alone.parts
    assert separate([use_of(True), use_of(False)])[0].text == alone.text


def test_conditions_on_settings_that_differ_are_branches() -> None:
    uses = joined([use_of(True), use_of(False)])
    assert uses[0].text == uses[1].text
    assert uses[0].text.splitlines()[1:] == [
        "    if $SHARP:",
        "        x = $SHARPNESS * x",
        "    else:",
        "        x = -x",
        "    if not $SHARP:",
        "        x = $other(x)",
        "    return x",
    ]
    assert set(uses[0].parts) == {"other"}


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
@pytest.mark.parametrize("every", [12, pytest.param(1, marks=pytest.mark.slow)])
def test_presets_are_formatted(tmp_path: Path, every: int) -> None:
    for index, text in enumerate(presets_written_and_refused(every)[0].values()):
        (tmp_path / f"model_{index}.py").write_text(text, encoding="utf-8")
    rules = "A,B,C4,E,F,FA,I,PIE,SIM,UP,W"
    for command in (["check", "--select", rules], ["format", "--diff"]):
        options = ["--isolated", "--line-length", "100", "--no-cache"]
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *options, tmp_path], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.skipif(find_spec("mypy") is None, reason="mypy is not installed")
def test_presets_are_typed(tmp_path: Path) -> None:
    for index, text in enumerate(presets_written_and_refused()[0].values()):
        (tmp_path / f"model_{index}.py").write_text(text, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        f"--cache-dir={tmp_path / 'cache'}",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_results_of_modules_are_typed() -> None:
    lines = [
        "class A(nn.Module):",
        "    def forward(self, x_BTE: Tensor) -> Tensor:",
        '        """Apply it, (B, T, E) to (B, T, V)."""',
        "        x_BTE = self.first(x_BTE)",
        "        h_BTE = self.second(x_BTE)  # twice",
        "        k_BTE = self.second(x_BTE).abs()",
        "        n_BTE = self.own(x_BTE)",
        "        return self.last(h_BTE + k_BTE + n_BTE)",
        "    def own(self, x_BTE: Tensor) -> Tensor:",
        "        return self.own(x_BTE)",
    ]
    expected = [*lines]
    expected[4] = "        h_BTE: Tensor = self.second(x_BTE)  # twice"
    expected[7:8] = ["        y_BTV: Tensor = self.last(h_BTE + k_BTE + n_BTE)", "        return y_BTV"]
    assert typed(lines) == expected


def test_norms_follow_attention_unless_it_uses_them() -> None:
    def order(name: str) -> list[str]:
        return re.findall(r"^# -------- (.+) --------$", source(name), flags=re.M)

    assert order("llama-3.2-1b")[1:] == ["Embedding", "Position", "Attention", "Norm", "Feed-forward", "Block", "Model"]
    assert order("qwen3-0.6b")[1:] == ["Embedding", "Position", "Norm", "Attention", "Feed-forward", "Block", "Model"]


LONG = {"inkling-2-small": 610, "qwen4-exp": 580}
"""Lines of models whose layers have parts that no others have: inputs of keys, and n-grams, streams and an indexer."""


@pytest.mark.slow
def test_presets_are_short_and_none_is_refused() -> None:
    written, refused = presets_written_and_refused()
    assert not refused
    long = {name: lines for name, text in written.items() if (lines := text.count("\n")) >= LONG.get(name, 420)}
    assert not long
