"""Candidates on a Ray cluster: workers with a running model each, on any number of machines, and new ones for those that are lost."""

import logging
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from hfsafemerge.errors import HfSafeMergeError, RecipeError, RunError, SearchError
from hfsafemerge.merging import Groups
from hfsafemerge.running.executing import Executor
from hfsafemerge.running.ray_worker import Worker, packed
from hfsafemerge.searching import Measurement, Query, Terms

if TYPE_CHECKING:
    from hfsafemerge.running.directory import Run

TRIES = 3  # for a query, and for a worker to come up, before the search gives up
LOST = "Raylet is terminated|has been marked dead because"  # pages that Ray prints about what is told here in a line
REACHED = 10.0  # seconds for a cluster to take a connection; Ray itself tries for minutes
PATIENCE = 60.0  # seconds without any worker at work before the user is told


@contextmanager
def on_ray(run: "Run", groups: Groups) -> Iterator[Executor]:
    """An executor whose candidates are evaluated by actors of a Ray cluster.

    A cluster that this process is connected to is used and left as it is; otherwise the one that RAY_ADDRESS names, or that runs on
    this machine; otherwise one is started here for the block. There are search.workers actors, or one for each GPU of the cluster,
    or one for each machine. An actor that is lost, or whose machine is, is replaced, and its candidate asked again.

    Args:
        run: the run, whose data are generated.
        groups: how numbers are spread over the tensors.

    Raises:
        RecipeError: Ray is not installed.
        RunError: there is no cluster at the address, or a machine lacks a local folder of the recipe or the run's scores.
        SearchError: workers are lost time and again, or something failed in one that is no error of this package's.
        HfSafeMergeError: whatever a worker ran into.
    """
    ray = the_library()
    with _connected(ray), ExitStack() as stack:
        workers = Workers(ray, run, groups)
        stack.callback(workers.stop)
        yield Executor(workers.evaluate, workers.reference)


@dataclass(eq=False)
class _Task:
    """A query on its way: where to put it when its worker is lost, how often that happened, and what came of it in the end."""

    query: Query
    of_base: bool
    waiting: deque["_Task"]
    losses: int = 0
    found: Measurement | None = None


@dataclass(eq=False)
class _Actor:
    """An actor, and how many before it in its place were lost without an answer."""

    handle: Any
    losses: int = 0


class Workers:
    """The actors of a search. Each has one query at a time, so that what is lost with it is little, and the free one takes the next."""

    def __init__(self, ray: Any, run: "Run", groups: Groups) -> None:
        """Start as many as the recipe says, or as the cluster has room for."""
        spec, compute = run.recipe.search, run.recipe.compute
        machines = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
        gpus = 0 if compute.device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
        count = spec.workers or gpus or len(machines) or 1
        device = "cuda" if gpus and compute.device != "auto" else compute.device  # an actor sees one GPU, whatever its number is elsewhere
        self._ray, self._run = ray, run
        self._kind = ray.remote(Worker).options(num_cpus=1, num_gpus=min(gpus, 1), scheduling_strategy="SPREAD", max_restarts=0)
        self._needs = "a GPU and a CPU" if gpus else "a CPU"
        self._package = ray.put(packed(run, groups, device, -(-count // max(1, len(machines)))))
        self._told: set[str] = set()
        self._free: list[_Actor] = []
        self._busy: dict[Any, tuple[_Actor, _Task | None]] = {}
        for _ in range(count):
            self._hire()

    def evaluate(self, queries: Sequence[Query]) -> Generator[Measurement, None, None]:
        """The answers to queries, in their order. What no worker has begun when the iterator is closed is not asked any more."""
        return self._answers(queries)

    def reference(self, query: Query) -> Terms:
        """What the base itself gives on the examples of a query."""
        return next(self._answers([query], of_base=True)).terms

    def stop(self) -> None:
        """End all actors, whatever they are doing."""
        for actor in [*self._free, *(actor for actor, _ in self._busy.values())]:
            self._ray.kill(actor.handle)
        self._free.clear()
        self._busy.clear()

    def _answers(self, queries: Sequence[Query], *, of_base: bool = False) -> Generator[Measurement, None, None]:
        waiting: deque[_Task] = deque()
        tasks = [_Task(query, of_base, waiting) for query in queries]
        waiting.extend(tasks)
        try:
            for task in tasks:
                self._hand_out(waiting)
                while task.found is None:
                    self._collect()
                    self._hand_out(waiting)
                yield task.found
        finally:
            waiting.clear()

    def _hire(self, losses: int = 0) -> None:
        actor = _Actor(self._kind.remote(self._package), losses)
        self._busy[actor.handle.start.remote()] = actor, None

    def _hand_out(self, waiting: deque[_Task]) -> None:
        while waiting and self._free:
            actor, task = self._free.pop(0), waiting.popleft()
            self._busy[actor.handle.answer.remote(task.query, task.of_base)] = actor, task

    def _collect(self) -> None:
        """Wait for one thing to be done, and see what came of it."""
        done, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=PATIENCE)
        if not done and not any(task for _, task in self._busy.values()):
            self._run.emit(f"no worker on the Ray cluster is ready yet; each needs {self._needs}, and time to load the models")
        for reference in done:
            actor, task = self._busy.pop(reference)
            try:
                answer = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                self._free.append(actor)
                _raise_as_it_was(error)
            except self._ray.exceptions.RayError as error:
                self._replace(actor, task, error)
                continue
            self._free.append(actor)
            if task is not None:
                actor.losses, task.found = 0, answer.found
            for message in answer.messages:
                if message not in self._told:  # many workers have the same to say
                    self._told.add(message)
                    self._run.emit(message)

    def _replace(self, actor: _Actor, task: _Task | None, error: Exception) -> None:
        reason = _reason(error)
        self._ray.kill(actor.handle)  # one that can't be reached may be at work still
        losses = 1 + (actor.losses if task is None else task.losses)
        if losses == TRIES:
            what = "None came up" if task is None else "The same candidate was asked each time"
            raise SearchError(f"{TRIES} workers on the Ray cluster were lost, the last one because: {reason} {what}; see the logs of Ray.")
        self._hire(losses if task is None else 0)
        if task is not None:
            task.losses = losses
            task.waiting.appendleft(task)
        self._run.emit(f"a worker on the Ray cluster was lost{'' if task is None else ', its candidate is asked again'}: {reason}")


def the_library() -> Any:
    """Ray itself. Raises RecipeError when it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", LOST)  # it is read when Ray is imported
    try:
        import ray
    except ImportError as error:
        raise RecipeError(
            "search.executor is ray, which is not installed. Install it with pip install 'hfsafemerge[ray]', "
            "or set search.executor to local."
        ) from error
    return ray


@contextmanager
def _connected(ray: Any) -> Iterator[None]:
    """This process is connected to a cluster in the block."""
    if ray.is_initialized():
        yield
        return
    at = os.environ.get("RAY_ADDRESS")
    with _own_signals():
        try:
            _reach(at or "")
            ray.init(log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            failed = f"Can't connect to the Ray cluster {at} that RAY_ADDRESS names" if at else "Can't start or find a Ray cluster"
            raise RunError(f"{failed}: {_reason(error)} Set RAY_ADDRESS to a running one, or search.executor to local.") from error
        try:
            yield
        finally:
            ray.shutdown()  # which ends the cluster only if it was started here


def _reach(address: str) -> None:
    """Raise OSError when nobody listens at an address such as 10.0.0.5:6379. Of others, and of this machine's own, Ray knows more."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host and host not in ("localhost", "127.0.0.1", "[::1]"):
        socket.create_connection((host.strip("[]"), int(port)), REACHED).close()


@contextmanager
def _own_signals() -> Iterator[None]:
    """Ray sets a handler of SIGTERM for the process; after the block it is what it was."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise_as_it_was(error: Any) -> NoReturn:
    """Raise the error of this package that was raised in an actor; for any other one a SearchError that names it."""
    cause = error.cause
    if isinstance(cause, HfSafeMergeError):
        raise cause from None
    raise SearchError(f"A worker on the Ray cluster failed with {type(cause).__name__}: {_reason(cause)} See the logs of Ray.") from error


def _reason(error: BaseException) -> str:
    """The last line of an error's text, where Ray says what happened, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".") + "."
