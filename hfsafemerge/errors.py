"""The errors a user can meet: each says what failed, the value found, and what to do. Anything else is a bug."""

from typing import Any


class HfSafeMergeError(Exception):
    """Something the user can put right. The command line prints it as one line and exits with `exit_code`."""

    exit_code = 1


class RecipeError(HfSafeMergeError):
    """The recipe asks for something that does not exist or does not fit together."""


class UnknownName(HfSafeMergeError):
    """No part of that name is registered."""


class IncompatibleExperts(HfSafeMergeError):
    """The models differ in architecture, shapes, vocabulary or chat template."""


class UnsafeRepository(HfSafeMergeError):
    """A repository holds code, pickles or paths that leave it."""


class CheckpointError(HfSafeMergeError):
    """A weight file can't be read or written as it should be."""


class DataError(HfSafeMergeError):
    """A dataset is empty, malformed or can't be generated."""


class BudgetSpent(HfSafeMergeError):
    """Models have read and written as many tokens as they may; what they made is kept."""


class JudgeError(HfSafeMergeError):
    """A judge does not answer in its own format."""


class SearchError(HfSafeMergeError):
    """The search can't go on: a fitness that is no number, or a log of another search."""


class HubError(HfSafeMergeError):
    """The Hub refused, lacks something, or can't be reached."""


class EndpointError(HfSafeMergeError):
    """A server that runs a model refuses, can't be reached, or does not answer in its format."""


class RunError(HfSafeMergeError):
    """A run directory is in use, damaged, or lacks what a stage needs."""


class OutOfDisk(HfSafeMergeError):
    """There is not enough room to write the result."""


class NotReproduced(HfSafeMergeError):
    """What was published was done again and does not come out, or can't be done again from the Hub alone."""

    exit_code = 3

    def __init__(self, message: str, result: Any = None) -> None:
        """`result` is the Reproduction with all findings, where something was done again."""
        super().__init__(message)
        self.result = result


class Cancelled(HfSafeMergeError):
    """The user stopped the work; the same command goes on from here."""

    exit_code = 130
