"""A run: one recipe carried through its stages in a directory, then published and rebuilt."""

from hfsafemerge.running.comparing import evaluate_models
from hfsafemerge.running.directory import Run
from hfsafemerge.running.events import Event, Listener, clock
from hfsafemerge.running.loading import load_recipe
from hfsafemerge.running.repeating.findings import Reproduction
from hfsafemerge.running.repeating.reproducing import reproduce
from hfsafemerge.running.stages import Stage, stages

__all__ = ["Event", "Listener", "Reproduction", "Run", "Stage", "clock", "evaluate_models", "load_recipe", "reproduce", "stages"]
