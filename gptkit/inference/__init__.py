"""Generation: requests, continuous batching, sampling, beam search and scoring."""

from gptkit.inference.beam import Beam, beam_search
from gptkit.inference.drafting import DrafterLike
from gptkit.inference.generation import Generation, TextStream, generate, stream
from gptkit.inference.request import Overflow, Request, RequestState
from gptkit.inference.result import Finish, Generated, Timings
from gptkit.inference.scheduler import Scheduler
from gptkit.inference.score import score
from gptkit.inference.session import Session
from gptkit.inference.simple import generate_simple

__all__ = [
    "Beam",
    "DrafterLike",
    "Finish",
    "Generated",
    "Generation",
    "Overflow",
    "Request",
    "RequestState",
    "Scheduler",
    "Session",
    "TextStream",
    "Timings",
    "beam_search",
    "generate",
    "generate_simple",
    "score",
    "stream",
]
