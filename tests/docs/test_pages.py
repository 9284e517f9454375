from __future__ import annotations

from functools import cache, partial
from pathlib import Path

import pytest

from gptkit.core.component import component
from gptkit.core.errors import GptkitError
from gptkit.core.registry import Registry
from gptkit.core.spec import Spec
from gptkit.docs import conformance, contracts, ejected, models
from gptkit.docs.pages import navigation, pages, write


@pytest.fixture(scope="module")
def pages_built_in(builtin: Registry) -> dict[str, str]:
    """The pages of the built-in components, without figures. Not to be changed."""
    return pages(builtin, figures=False)


@pytest.fixture(scope="module")
def pages_with_plugins(with_plugins: Registry) -> dict[str, str]:
    """The pages of the built-in components and of plugins, without figures. Not to be changed."""
    return pages(with_plugins, figures=False)


def listed(result: dict[str, str]) -> set[tuple[str, str]]:
    parts = [path.removeprefix("components/").removesuffix(".md").split("/") for path in result if "/" in path]
    return {(part[0], part[1]) for part in parts if len(part) == 2 and part[1] != "index"}


def registered(registry: Registry) -> set[tuple[str, str]]:
    return {(kind, name) for kind in registry.kinds() for name in registry.names(kind)}


def test_one_page_per_registered_component(
    builtin: Registry, with_plugins: Registry, pages_built_in: dict[str, str], pages_with_plugins: dict[str, str]
) -> None:
    for registry, result in ((builtin, pages_built_in), (with_plugins, pages_with_plugins)):
        assert listed(result) == registered(registry)
        kinds = {path.split("/")[1] for path in result if path.count("/") == 2 and path.endswith("/index.md")}
        assert kinds == set(registry.kinds())
    assert listed(pages_with_plugins) - listed(pages_built_in) == {("norm", "halving"), ("paint", "plain")}


def test_indexes_link_to_every_component(with_plugins: Registry, pages_with_plugins: dict[str, str]) -> None:
    for kind, name in registered(with_plugins):
        assert f"[{name}]({kind}/{name}.md)" in pages_with_plugins["components/index.md"]
        assert f"[{name}]({name}.md)" in pages_with_plugins[f"components/{kind}/index.md"]


def test_navigation_holds_every_page_once(with_plugins: Registry, pages_with_plugins: dict[str, str]) -> None:
    def flat(entry: object) -> list[str]:
        if isinstance(entry, str):
            return [entry]
        items = entry.values() if isinstance(entry, dict) else entry
        return [path for item in items for path in flat(item)]  # type: ignore[attr-defined]

    paths = flat(navigation(with_plugins))
    assert sorted([*paths, "plugins.md"]) == sorted(pages_with_plugins)


def test_plugin_component_has_a_page(pages_with_plugins: dict[str, str]) -> None:
    page = pages_with_plugins["components/norm/halving.md"]
    for part in (
        "# halving\n\nHalve every vector, e.g. for tests.",
        "```yaml\nnorm: halving\n```",
        "It has no weights.\n\nMore about `a_name` with \\| pipes \\| and \\*stars\\*.",
        "## Formula\n\n```text\ny = x / 2\n```",
        "## Shapes\n\n```text\n(..., dim) -> (..., dim)\n```",
        "`times`\n:   How often.<br>`int`; ≥ 1, &lt; 10 · default `1`",
        '`paint`\n:   Its color.<br>[paint](../paint/index.md) · default `{name: plain, color: "no"}`',
        '```yaml\nnorm: {name: halving, times: 1, paint: {name: plain, color: "no"}}\n```',
        "## Notes\n\nNothing more.",
        "- Paper: [On halving](https://arxiv.org/abs/1234.56789)",
        "- Provided by: `gptkit-paints==3.2`",
        "- Former names: `half`",
        "- Former fields: `count` is now `times`",
    ):
        assert part in page


def test_required_and_nested_fields_are_listed(pages_with_plugins: dict[str, str]) -> None:
    page = pages_with_plugins["components/paint/plain.md"]
    assert "```yaml\npaint: {name: plain, color: red}\n```" in page
    required, _, optional = page.partition("**Optional**")
    assert "**Required**\n\n`color`\n:   Which one, `red` or &lt;blue\\>.<br>`str`; at least 1 character\n" in required
    assert "`mixture.share`\n:   How much of it.<br>`float`; ≥ 0, ≤ 1 · default `0.5`" in optional
    assert "`under`\n:   A norm below.<br>[norm](../norm/index.md) or `null` · default `null`" in optional


def test_page_of_a_kind_shows_its_contract(pages_with_plugins: dict[str, str]) -> None:
    page = pages_with_plugins["components/paint/index.md"]
    for part in (
        "# paint\n\nColor of a model. It has no other effect.",
        "**Declared capabilities:**\n\n- **bright**: whether it shines.",
        "| [plain](plain.md) | One color all over. | `gptkit-paints==3.2` |",
        "- `paint` of [norm halving](../norm/halving.md)",
        "`build(self) -> str` *(required)*\n\n:   The color's name.",
    ):
        assert part in page


def test_runtime_contracts_are_shown(pages_built_in: dict[str, str]) -> None:
    page = pages_built_in["components/attention/index.md"]
    assert "### Attention" in page
    assert "forward(self, x_BTE: Tensor, forward: Forward) -> Tensor" in page


def test_a_broken_plugin_is_listed_with_its_error(pages_with_plugins: dict[str, str]) -> None:
    page = pages_with_plugins["plugins.md"]
    assert '!!! failure "gptkit-gone==9"' in page
    assert "could not be imported: ImportError: no module named 'gone'" in page
    assert "| `gptkit-paints==3.2` | `paints.plugin` | active |" in page


def test_snippets_have_the_keys_of_a_spec_file(with_plugins: Registry) -> None:
    from gptkit.kinds.norm import NormSpec

    class Model(Spec):
        norms: list[NormSpec] = component([], description="Some.")

    class Root(Spec):
        model: Model

    result = pages(with_plugins, root=Root, figures=False, kinds=["norm"])
    assert "```yaml\nmodel:\n  norms: [halving]\n```" in result["components/norm/halving.md"]
    assert "model:\n  norms:\n    - {name: halving, times: 1, " in result["components/norm/halving.md"]
    assert "- `model.norms`, a list" in result["components/norm/index.md"]


def test_page_has_a_table_of_positions_by_attentions(builtin: Registry, pages_built_in: dict[str, str]) -> None:
    index = pages_built_in["components/index.md"]
    for name, entry in builtin.entries("position").items():
        row = next(line for line in index.splitlines() if line.startswith(f"| [{name}](position/{name}.md) |"))
        cells = [cell.strip() for cell in row.strip("|").split("|")][1:]
        for cell, attention in zip(cells, builtin.entries("attention").values(), strict=True):
            uses = set(vars(entry.cls).get("uses", ())) - {"embed"}
            assert cell.startswith("yes") == (uses <= set(getattr(attention.cls, "accepts", ())))


@pytest.mark.slow
def test_write_creates_the_same_pages(tmp_path: Path, builtin: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    some = partial(pages, kinds=("norm", "schedule"), figures=False)
    monkeypatch.setattr("gptkit.docs.pages.pages", some)
    for module in (contracts, models, ejected):
        monkeypatch.setattr(module, "page", cache(module.page))
    monkeypatch.setattr(conformance, "page", lambda registry: f"{len(registry.kinds())} kinds are checked\n")
    directory = tmp_path / "deep" / "directory"
    written = write(directory, builtin)
    plain = some(builtin) | {
        "conformance.md": f"{len(builtin.kinds())} kinds are checked\n",
        contracts.PAGE: contracts.page(builtin),
        models.PAGE: models.page(builtin),
        ejected.PAGE: ejected.page(builtin),
    }
    expected = {path: f"{text}\n<!-- Generated by gptkit. -->\n" for path, text in plain.items()}
    assert {path.relative_to(directory).as_posix(): path.read_text(encoding="utf-8") for path in written} == expected


def test_write_replaces_its_own_pages_and_nothing_else(
    tmp_path: Path, builtin: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptkit.docs.pages.pages", partial(pages, kinds=("norm",), figures=False))
    for module in (conformance, contracts, models, ejected):
        monkeypatch.setattr(module, "page", lambda registry: "generated\n")
    index = write(tmp_path, builtin)[0]
    text = index.read_text(encoding="utf-8")
    write(tmp_path, builtin)
    assert index.read_text(encoding="utf-8") == text
    (tmp_path / "plugins.md").write_text("my own page")
    index.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(GptkitError, match=r"plugins\.md exists and is not a generated page"):
        write(tmp_path, builtin)
    assert (tmp_path / "plugins.md").read_text() == "my own page"
    assert index.read_text(encoding="utf-8") == text + "\n"


def test_contracts_page_lists_every_hook_layout_and_method(builtin: Registry) -> None:
    from gptkit.interop import layouts
    from gptkit.interop.families.decoder import Decoder
    from gptkit.kinds.external_config import ExternalConfig
    from gptkit.nn.attention.softmax import SoftmaxAttention
    from gptkit.nn.forward import Forward

    page = contracts.page(builtin)
    hooks = [name for name in dir(Decoder) if name.startswith(("read_", "write_"))]
    variables = ["tied", "eps", "activation", "inner", "width", "base", "fraction", "d_head", "attention_biases", "tiny"]
    assert len(hooks) >= 10
    for name in (*hooks, *variables, *layouts.__all__):
        assert f"`{name}`" in page or f"`{name}(" in page, name
    for cls, some in ((ExternalConfig, "alias"), (Forward, "fork"), (SoftmaxAttention, "attend")):
        own = [name for name, member in vars(cls).items() if callable(member) and member.__doc__ and name[0] != "_"]
        assert some in own
        assert all(f"`{name}(" in page for name in own), own
    assert "| `read_norm` | Return the norm, of the layers and after the last one. | `rms_norm_eps` (1e-06) |" in page
    assert "`head_dim` (computed)" in page
    assert "<object" not in page
