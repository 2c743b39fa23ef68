"""A search on a Ray cluster of two nodes on this machine: the same result as without, also when a node is lost in the middle."""

import builtins
import importlib.util
import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from tiny import tiny_model

from hfsafemerge.errors import HfSafeMergeError, JudgeError, RecipeError, RunError, SearchError
from hfsafemerge.examples import Example, save_examples
from hfsafemerge.recipe import Recipe
from hfsafemerge.running import Run, ray_cluster
from hfsafemerge.running.candidates import evaluator, groups_of
from hfsafemerge.running.ray_cluster import Workers, on_ray, the_library
from hfsafemerge.running.ray_worker import Answer, Worker, packed
from hfsafemerge.searching import Measurement, Query

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed (pip install 'hfsafemerge[ray]')")
EXAMPLES = [Example("domain", f"what is {i} wug plus 4 ?", f"it is {i + 4}", "sums") for i in range(12)]
SMALL = {"object_store_memory": 80_000_000}
IMPATIENT = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_failure_threshold": 3}


def recipe_of(folder, examples, **search):
    settings = {"strategy": "cma_es", "settings": {"max_evaluations": 8}, "use": ["domain"], "workers": 2}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": {"path": str(folder / "base")},
            "experts": [{"path": str(folder / name), "name": name, "topic": "sums"} for name in ("a", "b")],
            "data": {"domain": {"examples": {"path": str(examples)}}},
            "merge": {"method": "task_arithmetic", "layers_per_group": 1},
            "search": settings | search,
            "compute": {"device": "cpu", "threads": 2},
        }
    )


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    """A run of tiny models whose data are there, and whose search is not done."""
    folder = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate(("base", "a", "b")):
        tiny_model(folder / name, seed)
    save_examples(folder / "sums.parquet", EXAMPLES)
    run = Run(recipe_of(folder, folder / "sums.parquet"), folder / "run")
    run.do("generate")
    return run


@pytest.fixture(scope="module")
def calibrated(generated, tmp_path_factory):
    """The same with a method that asks how important entries are, which is found out already."""
    folder = tmp_path_factory.mktemp("calibrated") / "run"
    shutil.copytree(generated.directory, folder)
    run = Run(generated.recipe.changed({"merge.method": "led", "calibration.samples": 3}), folder)
    run.do("calibrate", redo=True)
    return run


@pytest.fixture
def copied(generated, tmp_path):
    """Makes copies of a run, for one executor or the other."""

    def copy(executor, listener=lambda event: None, run=generated):
        shutil.copytree(run.directory, tmp_path / executor)
        search = run.recipe.search.model_copy(update={"executor": executor, "workers": 2 if executor == "ray" else 1})
        return Run(run.recipe.model_copy(update={"search": search}), tmp_path / executor, listener)

    return copy


@pytest.fixture(scope="module")
def started():
    """The processes that were seen to run on the cluster; all are gone in the end."""
    seen = set()
    yield seen
    _, left = psutil.wait_procs(seen, 10)
    assert not left


@pytest.fixture(scope="module")
def cluster(started):
    """A cluster of one node, found by RAY_ADDRESS."""
    before = children()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        the_library()
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 1, "include_dashboard": False, "_system_config": IMPATIENT, **SMALL}
        found = Cluster(initialize_head=True, head_node_args=head)
        patch.setenv("RAY_ADDRESS", found.address)
        yield found
        started |= children() - before
        found.shutdown()


def children():
    return set(psutil.Process().children(recursive=True))


@pytest.fixture
def second(cluster):
    """A second node, which is gone after the test."""
    node = cluster.add_node(num_cpus=1, **SMALL)
    yield node
    if node in cluster.worker_nodes:
        cluster.remove_node(node, allow_graceful=False)


def found_by(run):
    """What a search leaves behind, without the time it took."""
    lines = [json.loads(line) for line in (run.directory / "search.jsonl").read_text().splitlines()]
    return [line | {"seconds": 0} for line in lines], run.read("parameters.json")


@needs_ray
def test_a_search_on_two_nodes_finds_what_a_local_one_finds(copied, second):
    import ray

    events = []
    local, spread = copied("local"), copied("ray", events.append)
    local.do("search")
    spread.do("search")
    assert found_by(spread) == found_by(local) and len(found_by(local)[0]) >= 8
    assert [event.message.split(" (")[0] for event in events].count("the models") == 1
    assert not ray.is_initialized()


@needs_ray
def test_workers_read_the_importance_scores_of_the_run(copied, calibrated, second):
    local, spread = (copied(executor, run=calibrated) for executor in ("local", "ray"))
    local.do("search")
    spread.do("search")
    assert found_by(spread) == found_by(local) and found_by(local)[1]["method"] == "led"


@needs_ray
def test_a_search_ends_the_same_when_a_node_is_lost(copied, cluster, second, started, monkeypatch):
    import ray

    messages, before, made = [], children(), []

    def make(*given):
        made.append(Workers(*given))
        return made[0]

    def listen(event):
        messages.append(event.message)
        if event.message.startswith("fitness") and event.done == 3:
            ray.wait(list(made[0]._busy), num_returns=len(made[0]._busy), timeout=60)  # both workers are up, so a candidate is lost
            started.update(children() - before)
            on_it = psutil.Process(second.all_processes["raylet"][0].process.pid).children(recursive=True)
            cluster.remove_node(second, allow_graceful=False)
            for process in on_it:  # they would outlive their node for a moment, and answer
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    monkeypatch.setattr(ray_cluster, "Workers", make)
    local, spread = copied("local"), copied("ray", listen)
    local.do("search")
    spread.do("search")
    assert found_by(spread) == found_by(local)
    lost = "a worker on the Ray cluster was lost, its candidate is asked again: "
    assert any(message.startswith(lost) for message in messages), messages


@needs_ray
def test_an_error_in_an_actor_arrives_as_itself(alone, cluster):
    """In a process that is connected already, and stays so."""
    import ray

    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with on_ray(alone, groups_of(alone)) as who:
            with pytest.raises(SearchError, match=r"A worker on the Ray cluster failed with ValueError: zip\(\).*shorter"):
                list(who.evaluate([Query([0.1])]))
            assert who.reference(Query([]))["domain/sums"].n == 10
        save_examples(alone.directory / "data" / "domain.parquet", EXAMPLES[:1])
        with on_ray(alone, groups_of(alone)) as who, pytest.raises(SearchError) as raised:
            list(who.evaluate([Query([0.1] * 4)]))
        assert type(raised.value) is SearchError and raised.value.__cause__ is None
        with pytest.raises(SearchError) as here, evaluator(alone, groups_of(alone)):
            pass
        assert str(raised.value) == str(here.value) and "1 examples" in str(here.value)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


@pytest.fixture
def alone(generated, tmp_path):
    """A copy of the run for one worker."""
    shutil.copytree(generated.directory, tmp_path / "run")
    search = generated.recipe.search.model_copy(update={"workers": 1})
    return Run(generated.recipe.model_copy(update={"search": search}), tmp_path / "run")


def test_without_ray_the_error_says_what_to_install(alone, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.split(".")[0] == "ray":
            raise ImportError("No module named 'ray'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RecipeError, match=r"pip install 'hfsafemerge\[ray\]'"), on_ray(alone, groups_of(alone)):
        pass


@needs_ray
def test_a_cluster_that_is_not_there_is_told_at_once(alone, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "0.0.0.0:1")
    expected = pytest.raises(
        RunError, match=r"Can't connect to the Ray cluster 0\.0\.0\.0:1 that RAY_ADDRESS names: .*\. Set RAY_ADDRESS to"
    )
    with expected, on_ray(alone, groups_of(alone)):
        pass


@pytest.fixture
def here(monkeypatch):
    """What a worker changes of its process is put back."""
    monkeypatch.chdir(Path.cwd())
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_worker_needs_nothing_of_the_run_s_directory(alone, here):
    package = packed(alone, groups_of(alone), "cpu", 1)
    shutil.rmtree(alone.directory)
    worker = Worker(pickle.loads(pickle.dumps(package)))
    told = worker.start()
    assert told.found is None and [message.split(" (")[0] for message in told.messages] == ["the models"]
    answer = worker.answer(Query([0.5] * 4), False)
    assert answer.found.terms["domain/sums"].n == 10 and answer.found.seconds > 0 and not answer.messages


def test_a_worker_finds_local_folders_that_differ_on_its_machine(alone, here, generated):
    package = packed(alone, groups_of(alone), "cpu", 1)
    elsewhere = package.recipe.replace("/a\n", "/missing\n")
    with pytest.raises(RunError, match=r"On \S+, a machine of the Ray cluster, \S+/missing does not exist\. Models in local folders"):
        Worker(package._replace(recipe=elsewhere)).start()
    elsewhere = package.recipe.replace("/a\n", "/b\n")
    with pytest.raises(RunError, match=r"/b is not the one that the run was checked with"):
        Worker(package._replace(recipe=elsewhere)).start()


def test_a_worker_needs_the_importance_scores_at_their_place(calibrated, here, tmp_path):
    shutil.copytree(calibrated.directory, tmp_path / "run")
    run = Run(calibrated.recipe, tmp_path / "run")
    package = pickle.loads(pickle.dumps(packed(run, groups_of(run), "cpu", 1)))
    worker = Worker(package)
    worker.start()
    shutil.rmtree(run.directory)  # what is open stays so
    assert worker.answer(Query([0.5] * 8), False).found.terms["domain/sums"].n == 10
    message = r"On \S+, a machine of the Ray cluster, \S+/run/calibration/\w+ does not exist\. Importance scores are read from the run's"
    with pytest.raises(RunError, match=message):
        Worker(package).start()


def test_a_worker_of_another_version_is_refused(alone):
    package = packed(alone, groups_of(alone), "cpu", 1)
    with pytest.raises(RunError, match=r"has hfsafemerge \S+, and the run is worked on with 0\.0\. Install the same version"):
        Worker(package._replace(version="0.0")).start()


class RayError(Exception):
    pass


class RayTaskError(RayError):
    def __init__(self, cause):
        self.cause = cause


class InProcess:
    """As much of Ray as is asked of it; actors answer with what `reply` makes of a query, or raise what it raises."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, reply, gpus=0, cpus=(4, 4)):
        self.reply, self.gpus, self.cpus = reply, gpus, cpus
        self.hired, self.killed, self.asked = [], [], []

    def nodes(self):
        return [{"Alive": True, "Resources": {"CPU": float(cpus)}} for cpus in self.cpus] + [{"Alive": False, "Resources": {"CPU": 9.0}}]

    def cluster_resources(self):
        return {"CPU": float(sum(self.cpus))} | ({"GPU": float(self.gpus)} if self.gpus else {})

    def put(self, value):
        return value

    def remote(self, kind):
        return self

    def options(self, **options):
        self.wanted = options

        def hire(package):
            self.package = package
            started = SimpleNamespace(remote=lambda: (lambda: self.reply("start"),))
            handle = SimpleNamespace(start=started, answer=SimpleNamespace(remote=self.ask))
            self.hired.append(handle)
            return handle

        return SimpleNamespace(remote=hire)

    def ask(self, query, of_base):
        self.asked.append(query.genome[0])
        return (lambda: self.reply(query.genome[0]),)

    def wait(self, references, num_returns, timeout):
        return references[-1:], references[:-1]  # whoever began last is done first

    def get(self, reference):
        return reference[0]()

    def kill(self, handle):
        self.killed.append(handle)


def scored(value):
    return Answer(None if value == "start" else Measurement({}, value), ["the models are kept"] if value == "start" else [])


def queries(*values):
    return [Query([value]) for value in values]


def test_answers_come_in_order_and_messages_once(alone):
    events = []
    ray = InProcess(scored)
    run = Run(alone.recipe.changed({"search.workers": 3}), alone.directory, events.append)
    workers = Workers(ray, run, groups_of(run))
    found = workers.evaluate(queries(0.0, 1.0, 2.0, 3.0, 4.0))
    assert [next(found).seconds for _ in range(5)] == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [event.message for event in events] == ["the models are kept"]
    workers.stop()
    assert len(ray.hired) == 3 and all(handle in ray.killed for handle in ray.hired)


def test_what_is_not_begun_when_the_answers_are_no_longer_wanted_is_not_asked(alone):
    ray = InProcess(scored)
    workers = Workers(ray, alone, groups_of(alone))
    found = workers.evaluate(queries(*map(float, range(9))))
    next(found)
    found.close()
    assert len(ray.asked) <= 2
    assert [each.seconds for each in workers.evaluate(queries(10.0, 11.0))] == [10.0, 11.0]
    assert list(workers.evaluate([])) == []


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "cpus", "count", "share"),
    [
        ("auto", 4, None, (8, 8), 4, 2),
        ("cuda:1", 4, 2, (8,), 2, 2),
        ("cpu", 4, None, (8, 8, 8), 3, 1),
        ("auto", 0, None, (0, 8, 8), 2, 1),
        ("auto", 0, 5, (8, 8), 5, 3),
    ],
)
def test_there_is_a_worker_for_each_gpu_or_machine(alone, device, gpus, workers, cpus, count, share):
    ray = InProcess(scored, gpus, cpus)
    changes = {"search": alone.recipe.search.model_copy(update={"workers": workers})}
    run = Run(
        alone.recipe.model_copy(update=changes | {"compute": alone.recipe.compute.model_copy(update={"device": device})}), alone.directory
    )
    Workers(ray, run, groups_of(run))
    assert len(ray.hired) == count and ray.package.share == share
    assert ray.wanted["num_gpus"] == (gpus > 0 and device != "cpu") and ray.wanted["scheduling_strategy"] == "SPREAD"
    assert ray.package.device == ("cuda" if device == "cuda:1" else device)


def test_a_candidate_that_costs_three_workers_ends_the_search(alone):
    events = []

    def reply(value):
        if value == 2.0:
            raise RayError("The actor died.\n\tpid: 7\nThe actor died of a worker process crash.")
        return scored(value)

    ray = InProcess(reply)
    run = Run(alone.recipe, alone.directory, events.append)
    found = Workers(ray, run, groups_of(run)).evaluate(queries(1.0, 2.0, 3.0))
    assert next(found).seconds == 1.0
    with pytest.raises(SearchError, match=r"^3 workers on the Ray cluster were lost, .* crash\. The same candidate was asked each time"):
        list(found)
    assert ray.asked.count(2.0) == 3 and len(ray.killed) == 3
    assert [event.message for event in events if "lost" in event.message] == [
        "a worker on the Ray cluster was lost, its candidate is asked again: The actor died of a worker process crash."
    ] * 2


def test_workers_that_never_come_up_end_the_search(alone):
    def reply(value):
        raise RayError("")

    ray = InProcess(reply)
    with pytest.raises(SearchError, match=r"the last one because: RayError\. None came up"):
        list(Workers(ray, alone, groups_of(alone)).evaluate(queries(1.0)))
    assert len(ray.hired) == 3


@pytest.mark.parametrize("error", [RecipeError("so it is"), JudgeError("so it is")])
def test_errors_of_this_package_keep_their_class(alone, error):
    def reply(value):
        raise RayTaskError(error)

    with pytest.raises(HfSafeMergeError) as raised:
        list(Workers(InProcess(reply), alone, groups_of(alone)).evaluate(queries(1.0)))
    assert raised.value is error
