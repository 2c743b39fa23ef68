"""Executors: who answers a strategy's queries. In this process, with one running model on each device."""

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

import torch

from hfsafemerge.live_merge import Evaluator
from hfsafemerge.merging import Groups
from hfsafemerge.running import inputs
from hfsafemerge.running.candidates import evaluator
from hfsafemerge.searching import Evaluate, Measurement, Query, Terms

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

ROOM = 0.5  # of a GPU's free memory for the running model; the rest is for activations and experts


class Executor(NamedTuple):
    """What answers queries, and says what the base itself scores on a query's examples."""

    evaluate: Evaluate
    reference: Callable[[Query], Terms]


@contextmanager
def executor(run: "Run", groups: Groups) -> Iterator[Executor]:
    """What answers queries for the block, as the recipe's search.executor and search.workers say."""
    if run.recipe.search.executor == "ray":
        from hfsafemerge.running.ray_cluster import on_ray

        with on_ray(run, groups) as found:
            yield found
        return
    with ExitStack() as stack:
        openers = [lambda device=device: stack.enter_context(evaluator(run, groups, device=device)) for device in _devices(run)]
        pool = stack.enter_context(ThreadPoolExecutor(len(openers), "candidate"))
        yield shared_out(openers, pool)


def shared_out(openers: Sequence[Callable[[], Evaluator]], pool: ThreadPoolExecutor) -> Executor:
    """Several evaluators, each of which takes the next query when it is free; answers come in order.

    An evaluator is opened when all others are at work: many strategies ask one query at a time.
    """
    free: queue.SimpleQueue[Evaluator] = queue.SimpleQueue()
    closed, opening = list(openers), threading.Lock()

    def take() -> Evaluator:
        with opening, suppress(queue.Empty):
            return free.get_nowait()
        with opening:
            if closed:
                return closed.pop(0)()
        return free.get()

    def answer(query: Query, *, of_base: bool = False) -> Measurement:
        mine = take()
        began = time.perf_counter()
        try:
            terms = mine.reference(query) if of_base else mine(query)
        finally:
            free.put(mine)
        return Measurement(terms, time.perf_counter() - began, mine.live.kept.memory)

    def evaluate(queries: Sequence[Query]) -> Generator[Measurement, None, None]:
        futures = [pool.submit(answer, query) for query in queries]
        try:
            for future in futures:
                yield future.result()
        finally:
            for future in futures:
                future.cancel()

    return Executor(evaluate, lambda query: answer(query, of_base=True).terms)


def _devices(run: "Run") -> list[str | None]:
    """The device of each running model: the recipe's own; with "auto" one on each GPU, if one can hold the model."""
    wanted, workers, gpus = run.recipe.compute.device, run.recipe.search.workers, torch.cuda.device_count()
    if wanted == "auto" and gpus > 1:
        needed = sum(info.size for info in inputs.source(run, "base").weights().tensors.values())
        if needed < ROOM * min(torch.cuda.mem_get_info(i)[0] for i in range(gpus)):
            return [f"cuda:{i}" for i in range(min(workers or gpus, gpus))]
    return [None] * (workers or 1)
