"""Writing with a model: `generate`, `stream`, and what they are made of."""

from gptkit.generation.beam import Beam, beam_search
from gptkit.generation.engine import Generation, TextStream, generate, stream
from gptkit.generation.result import Finish, Generated, Timings
from gptkit.generation.score import score
from gptkit.generation.simple import generate_simple

__all__ = [
    "Beam",
    "Finish",
    "Generated",
    "Generation",
    "TextStream",
    "Timings",
    "beam_search",
    "generate",
    "generate_simple",
    "score",
    "stream",
]
