"""Merging whole models: every tensor is read once, merged and written in its place, several at a time where that fits in memory."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter, TensorInfo, Unread, Weights, in_words
from hfsafemerge.errors import IncompatibleExperts, RecipeError
from hfsafemerge.merging.inputs import entries_at_once
from hfsafemerge.merging.tensors import TensorMerger

PORTION, MANY = 1 << 20, 64  # bytes, tensors
LARGE_BLOCK = 31 << 20  # bytes; of larger ones glibc learns nothing
AHEAD = 16  # portions that wait for a worker
VIEWED = 3  # what is read through an adapter or another vocabulary is in memory up to three times
BYTES_AN_ENTRY = 12  # beside what is read and written: one expert's delta and magnitudes, and their copy while a threshold is found


def merge_checkpoints(
    merger: TensorMerger,
    models: Mapping[str, Weights],
    writer: CheckpointWriter,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    device: str = "cpu",
    workers: int | None = None,
    max_memory: int | None = None,
) -> None:
    """Stream every tensor through the method. Memory is bounded by the largest tensors, not by the model.

    The result is the same, bit for bit, whatever the number of workers.

    Args:
        merger: the method and its parameters.
        models: the base and the experts by name, in the order of the parameters.
        writer: where it goes; it knows all tensors of the result.
        progress: told how many tensors of how many are done.
        device: where kernels run.
        workers: how many tensors are worked on at once; by default as many as torch has threads.
        max_memory: bytes that tensors being worked on may take together; by default what the workers need, and on a GPU half of
            what is free there.

    Raises:
        CheckpointError: a tensor can't be read or merged; it is named.
        RecipeError: the largest tensor alone needs more than `max_memory`.
        OutOfDisk: the result does not fit.
    """
    sources = {name: sources_of(merger, name, models) for name in writer.tensors}
    if max_memory is None and device != "cpu":
        max_memory = torch.cuda.mem_get_info(device)[0] // 2
    room = _Room(max_memory)
    needs = {
        name: _bytes_needed(info, [(models[model], source) for model, source in sources[name]], merger, device)
        for name, info in writer.tensors.items()
    }
    room.check(needs)
    stopped = threading.Event()
    small = threading.Lock()  # tiny tensors are the interpreter's work, at which two threads hinder each other

    def merge_one(name: str) -> None:
        with room.taken(needs[name]):
            read = [_read(models[model], source, merger, device) for model, source in sources[name]]
            for start, run in merger.runs(name, read[0], read[1:]):
                writer.write_run(name, start, run)

    def work(names: Sequence[str]) -> int:
        with nullcontext() if len(names) == 1 else small:
            for name in names:
                if stopped.is_set():
                    break
                try:
                    merge_one(name)
                except torch.OutOfMemoryError as error:
                    stopped.set()
                    raise RecipeError(f"{name} does not fit on {device} beside the others. Set --max-memory, or --device cpu.") from error
                except BaseException:  # the other workers stop too
                    stopped.set()
                    raise
        return len(names)

    torch.empty(LARGE_BLOCK, dtype=torch.uint8)  # once one was freed, glibc keeps what smaller ones give back, and page faults are few
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(workers or threads, "merge", lambda: begin_worker(device)) as pool:
            try:
                done = 0
                for count in _in_turn(pool, work, _portions(needs)):
                    done += count
                    progress(done, len(writer.tensors))
            finally:
                stopped.set()
    finally:
        torch.set_num_threads(threads)  # what a worker sets for itself, torch takes for all threads that begin later
    writer.finish()


def begin_worker(device: str = "cpu") -> None:
    """Prepare a worker: the workers are the threads, so torch takes no further ones, and sums don't depend on how many there are."""
    torch.set_num_threads(1)
    if device != "cpu":  # a stream of the worker's own lets its copies overlap with the others' work
        torch.cuda.set_stream(torch.cuda.Stream(device))


def sources_of(merger: TensorMerger, name: str, models: Mapping[str, Weights]) -> list[tuple[str, str]]:
    """Which tensors of which models a tensor of the result is made of, the base's first.

    Raises:
        IncompatibleExperts: one lacks it, or has it in another shape.
    """
    found = [(model, source) for model in models if (source := merger.groups.source(name, model)) is not None]
    for model, source in found:
        if source not in models[model].tensors:
            raise IncompatibleExperts(f"{model} has no tensor {source}, of which {name} is to be made.")
    shapes = {models[model].tensors[source].shape: f"{source} of {model}" for model, source in found}
    if len(shapes) > 1:
        told = ", ".join(f"{which} is {list(shape)}" for shape, which in shapes.items())
        raise IncompatibleExperts(f"{name} can't be made of tensors of different shapes: {told}.")
    return found


def _portions(needs: Mapping[str, int]) -> Iterator[list[str]]:
    """Tensors that are handed to a worker together: one, or as many small ones as are worth the handing."""
    portion: list[str] = []
    size = 0
    for name, need in needs.items():
        if portion and size + need > PORTION:  # so a large one is always alone
            yield portion
            portion, size = [], 0
        portion.append(name)
        size += need
        if len(portion) == MANY:
            yield portion
            portion, size = [], 0
    yield portion


def _in_turn(pool: ThreadPoolExecutor, work: Callable[[Sequence[str]], int], portions: Iterator[list[str]]) -> Iterator[int]:
    """Do the work for every portion, and yield what it gives whenever one is done; raise at once what it raises."""
    waiting: set[Future[int]] = set()
    while True:
        while len(waiting) < AHEAD and (portion := next(portions, None)) is not None:
            waiting.add(pool.submit(work, portion))
        if not waiting:
            return
        done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
        for future in done:
            yield future.result()


def _read(weights: Weights, source: str, merger: TensorMerger, device: str) -> Tensor | Unread:
    if device == "cpu":
        return Unread(weights, source) if isinstance(weights, Checkpoint) and in_runs(merger) else weights.read(source)
    return weights.read(source).pin_memory().to(device, non_blocking=True)


def in_runs(merger: TensorMerger) -> bool:
    """Whether a merge goes once through each tensor, so that it need not be in memory as a whole."""
    return merger.method.over != "tensor" and not merger.method.kernel.before


def _bytes_needed(result: TensorInfo, sources: Sequence[tuple[Weights, str]], merger: TensorMerger, device: str) -> int:
    """What a tensor in work takes: what is read, what is written, and what is found in the whole of it or computed of a part."""
    read = sum(weights.tensors[name].size * _times(weights, merger, device) for weights, name in sources)
    over_all = merger.method.over == "tensor" or bool(merger.method.kernel.before)
    entries = result.numel if over_all else 0
    each = 4 * (2 * len(sources) + 3) if merger.method.over == "tensor" else BYTES_AN_ENTRY
    part = min(result.numel, entries_at_once(len(sources), torch.device(device))) if device != "cpu" else 0  # small on a CPU
    return read + result.size + each * entries + 4 * (3 * len(sources) + 4) * part


def _times(weights: Weights, merger: TensorMerger, device: str) -> int:
    if not isinstance(weights, Checkpoint):
        return VIEWED
    return 0 if device == "cpu" and in_runs(merger) else 1


class _Room:
    """Bytes that may be taken, by several threads together."""

    def __init__(self, total: int | None) -> None:
        self._total = total
        self._taken = 0
        self._changed = threading.Condition()

    def check(self, needs: Mapping[str, int]) -> None:
        name = max(needs, key=lambda found: needs[found], default=None)
        if self._total is not None and name is not None and needs[name] > self._total:
            raise RecipeError(f"{name} alone needs {in_words(needs[name])} of memory, and {in_words(self._total)} are allowed.")

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._total is None or self._taken + size <= self._total)
            self._taken += size
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()
