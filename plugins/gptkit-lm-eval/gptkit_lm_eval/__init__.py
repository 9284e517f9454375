"""gptkit runs as models of EleutherAI's language model evaluation harness."""

from gptkit_lm_eval.model import GptkitLM

__all__ = ["GptkitLM"]
