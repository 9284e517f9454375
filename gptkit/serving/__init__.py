"""Serving of runs: an engine for asyncio programs, and the OpenAI API over HTTP."""
