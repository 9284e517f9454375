"""Writing with a model: `generate`, `stream`, and what they are made of."""

from gptkit.inference.beam import Beam, beam_search
from gptkit.inference.engine import Generation, Overflow
from gptkit.inference.result import Finish, Generated, Timings
from gptkit.inference.score import score
from gptkit.inference.simple import generate_simple
from gptkit.inference.write import TextStream, generate, stream

__all__ = [
    "Beam",
    "Finish",
    "Generated",
    "Generation",
    "Overflow",
    "TextStream",
    "Timings",
    "beam_search",
    "generate",
    "generate_simple",
    "score",
    "stream",
]
