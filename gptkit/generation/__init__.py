"""Writing with a model: `generate`, `stream`, and what they are made of."""

from gptkit.generation.beam import Beam, beam_search
from gptkit.generation.engine import Generation, Overflow
from gptkit.generation.result import Finish, Generated, Timings
from gptkit.generation.score import score
from gptkit.generation.simple import generate_simple
from gptkit.generation.write import TextStream, generate, stream

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
