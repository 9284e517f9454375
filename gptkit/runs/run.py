"""`Run`: a trained model with its spec, tokenizer and records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gptkit.checkpoint.entries import MODEL
from gptkit.checkpoint.store import CheckpointStore, read_state
from gptkit.core.errors import CheckpointError, DataError
from gptkit.core.registry import Registry
from gptkit.data import Prepared
from gptkit.engines.engine import Engine
from gptkit.inference import DrafterLike, Overflow, generate, stream
from gptkit.inference.decodings import DecodingLike
from gptkit.inference.samplers import SamplerLike
from gptkit.kinds.tokenizer import Tokenizer
from gptkit.model.gpt import GPT
from gptkit.model.merging import has_adapters, merged_model, merged_spec
from gptkit.runs.build import new_model
from gptkit.runs.conversation import Conversation
from gptkit.runs.directory import RunDirectory
from gptkit.runs.evaluating import NO_BITS_PER_BYTE, Progress, evaluate_files, evaluate_tokens, numbers
from gptkit.runs.opening import Opened
from gptkit.runs.precisions import PrecisionLike, precision_of
from gptkit.runs.prompts import chat_prompt, imported_ends, prompt_ids
from gptkit.runs.quantized import load_model
from gptkit.runs.sampling import chain_of, options_of
from gptkit.runs.saving import save_opened
from gptkit.runs.spec import ExperimentSpec
from gptkit.runs.tokenizers import load_tokenizer
from gptkit.runs.tokens import run_tokens
from gptkit.runs.versions import naming_versions
from gptkit.runs.views import Views
from gptkit.text.chat import Messages
from gptkit.training.precision import pick_device

__all__ = ["NO_BITS_PER_BYTE", "Run", "load"]


class Run(Views):
    """A trained model.

    Attributes:
        directory: the run directory.
        spec: the resolved spec.
        model: the model, in evaluation mode.
        tokenizer: the tokenizer that it was trained with.
        step: the number of training steps.
        provenance: the distribution of each component, versions, hashes.
        ended: whether a callback has ended this training before its last step.
    """

    def __init__(
        self,
        directory: Path,
        spec: ExperimentSpec,
        model: GPT,
        tokenizer: Tokenizer,
        step: int,
        provenance: Mapping[str, Any],
    ) -> None:
        self.directory = directory
        self.spec = spec
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.step = step
        self.provenance = dict(provenance)
        self.ended = False

    def __repr__(self) -> str:
        return f"<Run {self.spec.name!r} at step {self.step} of {self.spec.training.steps} in {str(self.directory)!r}>"

    @property
    def finished(self) -> bool:
        """Whether the training reached its last step, or a callback ended it before."""
        return self.ended or self.step >= self.spec.training.steps

    @property
    def ends(self) -> list[int]:
        """Token ids that end a text, besides the tokenizer's end token: those of an imported generation_config.json."""
        return imported_ends(self.provenance)

    @property
    def text_ends(self) -> list[int]:
        """Token ids that end a text: the tokenizer's end token and `ends`."""
        return list(dict.fromkeys([*([] if self.tokenizer.end_id is None else [self.tokenizer.end_id]), *self.ends]))

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 200,
        sampler: SamplerLike | None = None,
        decoding: DecodingLike | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> str:
        """Generate text after a prompt; return it without the prompt.

        Args:
            prompt: the beginning of a text, possibly empty.
            max_new_tokens: maximum number of generated tokens.
            sampler: the chain of samplers, such as ``["greedy"]``; the spec's by default, or none with a decoding that
                searches.
            decoding: the decoding, such as ``"beam"``; the spec's by default.
            stop: strings that end the text.
            seed: random seed; equal seeds give equal texts.
        """
        ids = prompt_ids(self.tokenizer, prompt)
        (result,) = generate(
            self.model,
            self.tokenizer,
            [ids],
            **options_of(self.spec, sampler, decoding),
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=self.text_ends,
            seed=seed,
        )
        return result.text

    def stream(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 200,
        sampler: SamplerLike | None = None,
        decoding: DecodingLike | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> Iterator[str]:
        """Generate text as `generate` does, and yield it in pieces."""
        ids = prompt_ids(self.tokenizer, prompt)
        return stream(
            self.model,
            self.tokenizer,
            ids,
            **options_of(self.spec, sampler, decoding),
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=self.text_ends,
            seed=seed,
        )

    def chat(
        self,
        messages: Messages,
        *,
        max_new_tokens: int = 200,
        sampler: SamplerLike | None = None,
        decoding: DecodingLike | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
    ) -> str:
        """Generate the reply in a conversation, formatted by the tokenizer's chat template.

        ::

            run.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}])

        Args:
            messages: the conversation: mappings with `role` (system, user, assistant) and `content`, or a single message of
                the user. Special tokens in messages are read as text.
            max_new_tokens, sampler, decoding, stop, seed: as for `generate`.

        Raises:
            TokenizerError: the tokenizer has no chat template, or the template rejects the conversation.
        """
        ids, ends = chat_prompt(self.tokenizer, messages, self.ends)
        (result,) = generate(
            self.model,
            self.tokenizer,
            [ids],
            **options_of(self.spec, sampler, decoding),
            max_new_tokens=max_new_tokens,
            stop=stop,
            stop_ids=ends,
            seed=seed,
        )
        return result.text

    def conversation(
        self,
        system: str | None = None,
        *,
        max_new_tokens: int = 1000,
        sampler: SamplerLike | None = None,
        stop: str | Sequence[str] = (),
        seed: int | None = None,
        overflow: Overflow = "slide",
        drafter: DrafterLike | None = None,
        compile: bool = False,
        engine: Engine | None = None,
    ) -> Conversation:
        """Start a conversation of several turns: ``run.conversation(system="Be brief.").say("Who are you?")``.

        Args:
            system, max_new_tokens, sampler, stop, seed, overflow, drafter, compile, engine: as for `Conversation`.
        """
        return Conversation(
            self.model,
            self.tokenizer,
            system=system,
            ends=self.ends,
            sampler=chain_of(self.spec, sampler),
            max_new_tokens=max_new_tokens,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            seed=seed,
            overflow=overflow,
            drafter=drafter,
            compile=compile,
            engine=engine,
        )

    def evaluate(
        self,
        data: str | Path | Sequence[str | Path] | None = None,
        *,
        batch_size: int | None = None,
        max_batches: int | None = None,
        progress: Progress | None = None,
    ) -> dict[str, float]:
        """Measure the loss on the validation split of the run's corpus, or on other text.

        Both are measured as the validation in training: in its data windows, including end tokens.

        Args:
            data: files, directories or globs to evaluate on instead. JSON Lines are read with the fields of the run's
                `data`, prompts included.
            batch_size: number of data windows per batch; as in training by default.
            max_batches: maximum number of batches; all by default.
            progress: called with the number of evaluated data windows and the total number.

        Returns:
            ``loss`` in nats per token, ``perplexity``, ``bits_per_byte``, and the number of predicted ``tokens``.
            ``bits_per_byte`` is the sum of the losses of text tokens, divided by ln(2) and the number of bytes of the text.
            It is missing if decoding the tokens does not restore the text (reason `NO_BITS_PER_BYTE`).

        Raises:
            DataError: the corpus has no validation split, or text is unavailable.
        """
        size = batch_size or self.spec.training.batch_size
        if data is not None:
            paths = [data] if isinstance(data, (str, Path)) else list(data)
            return numbers(evaluate_files(self, paths, batch_size=size, max_batches=max_batches, progress=progress))
        prepared = self.prepared()
        value = evaluate_tokens(
            self,
            prepared.validation,
            prepared.validation_counts,
            self.spec.data,
            batch_size=size,
            max_batches=max_batches,
            progress=progress,
        )
        if value is None:
            hint = "Evaluate on other text (--data FILE), or set data.validation above 0 and train from scratch."
            raise DataError("the corpus has no validation split", hint=hint)
        return numbers(value)

    def merged(self) -> Run:
        """Return the run's model with its adapters merged into the weights, under the spec without them.

        ::

            run.merged().save("runs/merged")

        Its logits equal those of the model with adapters. A model without adapters is returned unchanged.
        """
        # A precision merges them too.
        if not has_adapters(self.spec.model) or self.model.precision is not None:
            return self
        training = self.spec.training.model_copy(update={"freeze": None})
        spec = self.spec.model_copy(update={"model": merged_spec(self.spec.model), "training": training})
        return Run(self.directory, spec, merged_model(self.model), self.tokenizer, self.step, self.provenance)

    def save(self, path: str | Path, *, overwrite: bool = False, registry: Registry | None = None) -> Path:
        """Write the model with its current weights as another run, of `merged` for example.

        The new run has the spec and the tokenizer of this one, and one checkpoint: of step 0, without an optimizer's state.

        Args:
            path, overwrite, registry: as for `gptkit.save_run`.

        Returns:
            The run directory.

        Raises:
            GptkitError: the model's tensors do not match the spec.
            CheckpointError: the directory holds a run already or other files, or another process writes into it.
        """
        base = Path(self.provenance.get("base", ".")).absolute()
        # Entries that an export requires of the external model.
        notes = {key: self.provenance[key] for key in ("imported",) if key in self.provenance}
        opened = Opened(self.spec, base)
        return save_opened(path, self.model, self.tokenizer, opened, overwrite=overwrite, registry=registry, **notes)

    def prepared(self) -> Prepared:
        """Return the run's corpus as tokens, which are prepared again if they were removed."""
        return run_tokens(self.spec, self.tokenizer, self.provenance, self.directory)


def load(
    directory: str | Path,
    *,
    step: int | None = None,
    device: str = "auto",
    precision: PrecisionLike | None = None,
    registry: Registry | None = None,
) -> Run:
    """Load a run from its directory. The weights are memory-mapped, so loading takes little time and memory.

    Args:
        directory: the run directory.
        step: the step of the checkpoint; the newest by default.
        device: the device of the model: auto, cpu, cuda or mps.
        precision: convert the weights for inference (``"int8"``): a component of kind `precision`, its fields, or its name.
        registry: where components are looked up; by default what is installed.

    Raises:
        CheckpointError: the run or checkpoint was not found, or a file is damaged; names it.
        RequirementError: the run requires a plugin that is not installed; names the distribution.
        SpecError: the precision is invalid.
        GptkitError: the weights are stored in another precision.
    """
    chosen = None if precision is None else precision_of(precision, registry)
    run_directory = RunDirectory(directory)
    spec = run_directory.read_spec(registry)
    store = CheckpointStore(run_directory.checkpoints)
    steps = store.steps()
    if not steps:
        raise CheckpointError(f"{run_directory.path} has no checkpoint yet", hint="Resume the training until it saves one.")
    if step is not None and step not in steps:
        raise CheckpointError(
            f"{run_directory.path} has no checkpoint of step {step}", hint=f"Choose one of: {', '.join(map(str, steps))}."
        )
    checkpoint = store.path(steps[-1] if step is None else step)
    state = read_state(checkpoint, verify={MODEL}, quantized=True)
    tokenizer = load_tokenizer(spec, run_directory)
    model = new_model(spec, tokenizer.vocab_size, fill=False)
    with naming_versions(run_directory.read_provenance(), registry):
        load_model(model, run_directory, checkpoint, state, pick_device(device), chosen, registry)
    return Run(run_directory.path, spec, model, tokenizer, state["step"], run_directory.read_provenance())
