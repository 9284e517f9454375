"""Conformance kit: checks that a component satisfies the contract of its kind.

In a plugin's tests::

    from gptkit.testing import parametrize_checks

    @parametrize_checks(MySpec(), MySpec(window=4))
    def test_conformance(spec, check):
        check(spec)

On the command line: ``gptkit plugin check DISTRIBUTION``.
"""

from gptkit.testing.check import Check, ContractError, NotApplicableError, Outcome, Result
from gptkit.testing.kit import KNOWN_FAILURES, checks_for, instances, run_checks
from gptkit.testing.parametrize import parametrize_checks
from gptkit.testing.reference import ReferencePair

__all__ = [
    "KNOWN_FAILURES",
    "Check",
    "ContractError",
    "NotApplicableError",
    "Outcome",
    "ReferencePair",
    "Result",
    "checks_for",
    "instances",
    "parametrize_checks",
    "run_checks",
]
