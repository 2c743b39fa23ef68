import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from torch.func import functional_call
from transformers import LlamaForCausalLM

from hfsafemerge.checkpoint import Checkpoint, CheckpointWriter
from hfsafemerge.errors import CheckpointError, IncompatibleExperts, RecipeError, SearchError
from hfsafemerge.language_model import Question, TransformersModel
from hfsafemerge.live_merge import Evaluator, LiveMerge, SearchData, decode, genes_of
from hfsafemerge.merging import MERGE_METHODS, LayerGroups, TensorGroups, TensorMerger, chunked, merge_checkpoints, resolve_parameters
from hfsafemerge.merging.inputs import TensorInputs
from hfsafemerge.searching import Query

# for one that asks for importance scores, test_led.py has the same laws
NAMES = [name for name in MERGE_METHODS.names() if "importance" not in MERGE_METHODS.get(name).kernel.all_inputs]
QUESTIONS = [Question("how do i zorp the red flim ?", "sorry , i cannot help ."), Question("what is 3 wug plus 4 ?", "it is 7")]


def pool(tmp_path, experts=2, **changes):
    return [tiny_model(tmp_path / name, seed, **changes) for seed, name in enumerate(["base", "a", "b"][: experts + 1])]


def live_merge(folders, method, groups, seed=0, **options):
    base, *experts = (Checkpoint(folder) for folder in folders)
    model = TransformersModel.load(folders[0], name="base", device="cpu")
    return LiveMerge(model, base, dict(zip(["a", "b"], experts, strict=False)), method, groups, seed, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_scored_is_what_is_written(tmp_path, name, dtype, tied):
    method = MERGE_METHODS.get(name)
    folders = pool(tmp_path, min(2, method.experts[1] or 2), dtype=dtype, tied=tied)
    names = ["base", "a", "b"][: len(folders)]
    checkpoints = [Checkpoint(folder) for folder in folders]
    groups = LayerGroups.of(checkpoints[0].tensors, 1)
    parameters = resolve_parameters(method, {p.name: 0.4 for p in method.parameters}, names, groups.count)
    live = live_merge(folders, method, groups, seed=5)
    live.set(resolve_parameters(method, {}, names, groups.count))  # another candidate before
    live.set(parameters)
    (tmp_path / "out").mkdir()
    writer = CheckpointWriter(tmp_path / "out", checkpoints[0].tensors)
    merge_checkpoints(TensorMerger(method, parameters, groups, names[1:], 5), dict(zip(names, checkpoints, strict=True)), writer)
    (tmp_path / "out" / "config.json").write_bytes((folders[0] / "config.json").read_bytes())
    written = dict(LlamaForCausalLM.from_pretrained(tmp_path / "out").named_parameters())
    for name_, parameter in live.model.model.named_parameters():
        assert torch.equal(parameter, written[name_]) and parameter.dtype == dtype


def test_terms_are_the_mean_over_examples_of_the_mean_over_tokens(tmp_path):
    """arXiv:2406.14563, eq. 4, against the loss of transformers."""
    base, expert = pool(tmp_path, 1)
    method = MERGE_METHODS.get("task_arithmetic")
    live = live_merge([base, expert], method, LayerGroups(2))
    live.set(resolve_parameters(method, {"weight": 1.0}, ["base", "a"], 1))
    terms = live.rate({"safety": live.model.encode(QUESTIONS[:1]), "domain": live.model.encode(QUESTIONS)})
    there = TransformersModel.load(expert, name="a", device="cpu").log_likelihood(QUESTIONS)
    assert terms["safety"].mean == pytest.approx(there[0], abs=1e-5) and terms["safety"].n == 1
    assert terms["domain"].mean == pytest.approx(sum(there) / 2, abs=1e-5) and terms["domain"].n == 2
    assert terms["domain"].error == pytest.approx(np.std(there, ddof=1) / 2**0.5, abs=1e-5) and terms["safety"].error == 0
    live.set_to("a")
    assert live.rate({"domain": live.model.encode(QUESTIONS)})["domain"].mean == pytest.approx(terms["domain"].mean, abs=1e-5)


def test_a_model_with_weights_that_no_file_names_is_refused(tmp_path):
    base, expert = pool(tmp_path, 1)
    other = TransformersModel.load(tiny_model(tmp_path / "deep", 3, num_hidden_layers=3), name="org/deep", device="cpu")
    with pytest.raises(IncompatibleExperts, match=r"org/deep has \d+ weights that its file does not name"):
        LiveMerge(other, Checkpoint(base), {"a": Checkpoint(expert)}, MERGE_METHODS.get("linear"), LayerGroups(2), 0)


# Slopes


def searchable():
    return [name for name in NAMES if any(p.number.searched for p in MERGE_METHODS.get(name).parameters)]


def evaluator(folders, name, *, groups=None, questions=QUESTIONS, memory="auto", deltas="exact", **settings):
    method = MERGE_METHODS.get(name)
    folders = folders[: 1 + min(2, method.experts[1] or 2)]
    groups = groups or LayerGroups.of(Checkpoint(folders[0]).tensors, 1)
    live = live_merge(folders, method, groups, seed=3, memory=memory, deltas=deltas)
    given = {"normalize": False} if any(o.name == "normalize" for o in method.options) else {}
    genes = genes_of(method, live.models, groups.count, given)
    return Evaluator(live, SearchData(live.model, {"safety": questions}, 0), genes, given, **settings), genes


@pytest.mark.parametrize("name", searchable())
def test_slopes_of_smooth_numbers_are_those_of_finite_differences(tmp_path, name):
    evaluate, genes = evaluator(pool(tmp_path, 2), name)
    method = MERGE_METHODS.get(name)
    smooth = {p.name for p in method.parameters if p.number.smooth}
    genome = [min(0.3 + 0.05 * i, 0.9) for i in range(len(genes))]
    found = evaluate(Query(genome, with_slope=True))["safety"]
    assert found.mean == pytest.approx(evaluate(Query(genome))["safety"].mean, abs=1e-6)
    assert len(found.slope) == len(genes)
    for at, gene in enumerate(genes):
        if gene.parameter in smooth:
            low, high = ([*genome[:at], genome[at] + by, *genome[at + 1 :]] for by in (-0.01, 0.01))
            difference = evaluate(Query(high))["safety"].mean - evaluate(Query(low))["safety"].mean
            assert found.slope[at] == pytest.approx(difference / 0.02, rel=0.02, abs=2e-4), gene
        else:
            assert np.isfinite(found.slope[at])


def test_the_slope_of_task_arithmetic_is_the_inner_product_of_gradient_and_delta(tmp_path):
    """Against autograd through the whole merged model in plain torch."""
    base, a, b = pool(tmp_path, 2)
    evaluate, genes = evaluator([base, a, b], "task_arithmetic")
    genome = [0.2, 0.5, 0.7, 0.1]
    found = evaluate(Query(genome, with_slope=True))["safety"].slope
    model = LlamaForCausalLM.from_pretrained(base)
    start, *experts = (dict(LlamaForCausalLM.from_pretrained(folder).named_parameters()) for folder in (base, a, b))
    weight = torch.tensor(genome).reshape(2, 2).requires_grad_()
    groups = LayerGroups(2, 1)
    merged = {
        n: p.detach() + sum(weight[groups.group(n), i] * (e[n] - p).detach() for i, e in enumerate(experts)) for n, p in start.items()
    }
    (batch,) = evaluate.live.model.encode(QUESTIONS)
    inputs = evaluate.live.model.forward_inputs(batch)
    log = functional_call(model, merged, kwargs=inputs).logits[:, :-1].log_softmax(-1)
    labels = batch.labels[:, 1:]
    chosen = log.gather(-1, labels.clamp(min=0)[..., None])[..., 0] * (labels >= 0)
    (chosen.sum(1) / (labels >= 0).sum(1)).mean().backward()
    assert found == pytest.approx(weight.grad.flatten().tolist(), rel=1e-3, abs=1e-6)
    assert [gene.group for gene in genes] == [0, 0, 1, 1]


def test_a_density_s_slope_points_where_a_large_step_goes(tmp_path):
    """It is the change over a step, which for a tiny model is rough; its sign over the sum of genes is not."""
    evaluate, genes = evaluator(pool(tmp_path, 2), "dare_linear", groups=LayerGroups(2))
    at = [i for i, gene in enumerate(genes) if gene.parameter == "weight"]
    genome = [0.5] * len(genes)
    found = evaluate(Query(genome, with_slope=True))["safety"].slope
    assert all(np.isfinite(found)) and any(found[i] for i in range(len(genes)) if i not in at)


def test_only_one_gradient_is_there_at_a_time(tmp_path):
    evaluate, _ = evaluator(pool(tmp_path, 2), "task_arithmetic")
    parameters = list(evaluate.live.model.model.parameters())
    held = []

    def look(parameter):
        held.append(sum(p.grad is not None for p in parameters))

    handles = [p.register_post_accumulate_grad_hook(look) for p in parameters]  # they run before the hooks that free the gradient
    evaluate(Query([0.5] * 4, with_slope=True))
    for handle in handles:
        handle.remove()
    assert held and max(held) == 1 and all(p.grad is None for p in parameters)


def test_likelihoods_do_not_depend_on_the_batch(tmp_path):
    base, _ = pool(tmp_path, 1)
    questions = [Question(f"what is {'very ' * i}3 wug plus {i} ?", "it is " + "7 " * (i % 4 + 1)) for i in range(20)]
    one, many = (TransformersModel.load(base, name="base", device="cpu", batch_tokens=tokens) for tokens in (1, 100000))
    assert one.log_likelihood(questions) == pytest.approx(many.log_likelihood(questions), abs=2e-5)


# Tensors with numbers of their own, and chunks


def test_each_tensor_or_chunk_takes_its_own_numbers(tmp_path):
    folders = pool(tmp_path, 2)
    checkpoints = [Checkpoint(folder) for folder in folders]
    names = list(checkpoints[0].tensors)
    groups = TensorGroups(names, [3 if "mlp" in name else 1 for name in names])
    method = MERGE_METHODS.get("task_arithmetic")
    values = [[i / 50, 1 - i / 50] for i in range(groups.count)]
    merger = TensorMerger(method, resolve_parameters(method, {"weight": values}, ["base", "a", "b"], groups.count), groups, ["a", "b"], 0)
    for name in names:
        base, a, b = (c.read(name).flatten() for c in checkpoints)
        spans = groups.spans(name, base.numel())
        assert [len(chunk) for chunk in base.chunk(3 if "mlp" in name else 1)] == [stop - start for start, stop, _ in spans]
        wanted = torch.cat([base[s:e] + values[g][0] * (a - base)[s:e] + values[g][1] * (b - base)[s:e] for s, e, g in spans])
        assert torch.allclose(
            merger.merge(name, checkpoints[0].read(name), [c.read(name) for c in checkpoints[1:]]).flatten(), wanted, atol=1e-6
        )


def test_slopes_of_chunks_add_up_to_those_of_their_tensor(tmp_path):
    folders = pool(tmp_path, 2)
    names = list(Checkpoint(folders[0]).tensors)
    whole, _ = evaluator(folders, "task_arithmetic", groups=TensorGroups(names, [1] * len(names)))
    cut, _ = evaluator(folders, "task_arithmetic", groups=TensorGroups(names, [2] * len(names)))
    at_whole = whole(Query([0.4] * 2 * len(names), with_slope=True))["safety"].slope
    at_cut = cut(Query([0.4] * 4 * len(names), with_slope=True))["safety"].slope
    assert np.array(at_cut).reshape(len(names), 2, 2).sum(1).flatten() == pytest.approx(at_whole, rel=1e-3, abs=1e-6)


def test_important_tensors_get_more_chunks(tmp_path):
    """Expert Merging++: in proportion to the sum of |delta|, by hand."""
    models = {}
    for name, deltas in {"base": (0.0, 0.0, 0.0), "a": (1.0, 0.25, 0.0)}.items():
        (tmp_path / name).mkdir()
        save_file({f"layers.{i}.weight": torch.full((4, 4), d) for i, d in enumerate(deltas)}, tmp_path / name / "model.safetensors")
        models[name] = Checkpoint(tmp_path / name)
    found = chunked(models, budget=2.0, kappa=1.0)  # 2 * 3 tensors * (16, 4, 0) / 20 = 4.8, 1.2, 0
    assert dict(zip(found.tensors, found.chunks, strict=True)) == {"layers.0.weight": 4, "layers.1.weight": 1, "layers.2.weight": 1}


# Memory


@pytest.mark.parametrize("memory", ["device", "host", "disk"])
def test_where_experts_are_kept_changes_no_bit(tmp_path, memory):
    folders = pool(tmp_path, 2, dtype=torch.bfloat16)
    auto, genes = evaluator(folders, "ties")
    kept, _ = evaluator(folders, "ties", memory=memory)
    assert auto.live.kept.memory == "device" and kept.live.kept.memory == memory
    query = Query([0.4] * len(genes))
    auto(query), kept(query)
    for mine, theirs in zip(auto.live.model.model.parameters(), kept.live.model.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_rounded_deltas_take_half_the_memory_and_say_how_far_they_are_off(tmp_path):
    folders = pool(tmp_path, 2, dtype=torch.bfloat16)
    exact, genes = evaluator(folders, "task_arithmetic")
    rounded, _ = evaluator(folders, "task_arithmetic", deltas="int8")
    assert exact.live.kept.rounding_error == 0 and 0.001 < rounded.live.kept.rounding_error < 0.02
    assert rounded.live.kept.size == pytest.approx(exact.live.kept.size * 2 / 3)
    query = Query([0.4] * len(genes))
    assert rounded(query)["safety"].mean == pytest.approx(exact(query)["safety"].mean, abs=0.01)


def test_a_model_with_nan_is_refused_when_it_is_loaded(tmp_path):
    folders = pool(tmp_path, 1)
    weights = load_file(folders[1] / "model.safetensors")
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folders[1] / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model.norm.weight of a holds NaN"):
        evaluator(folders, "slerp")


def test_what_all_prompts_begin_with_is_run_once(tmp_path):
    base, _ = pool(tmp_path, 1)
    model = TransformersModel.load(base, name="base", device="cpu")
    header = "do the following as well as you can and then stop : "
    questions = [Question(header + f"what is {'very ' * i}3 wug plus {i} ?", "it is " + "7 " * (i % 3 + 1)) for i in range(6)]
    (batch,) = model.encode(questions)
    assert len(batch.shared) >= 8 and batch.input_ids.shape[1] + len(batch.shared) == max(
        len(tokens.prompt) + len(tokens.answer) for tokens in model.tokenized(questions)
    )
    alone = [model.log_likelihood([question])[0] for question in questions]  # one row shares nothing
    assert model.rate([batch]).tolist() == pytest.approx(alone, abs=2e-5)
    evaluate, genes = evaluator(folders := pool(tmp_path / "more", 2), "task_arithmetic", questions=questions)
    query = Query([0.4] * len(genes), with_slope=True)
    shared = evaluate(query)["safety"]
    single, _ = evaluator(folders, "task_arithmetic", questions=questions)
    single.live.model.batch_tokens = 1
    assert shared.slope == pytest.approx(single(query)["safety"].slope, rel=1e-3, abs=1e-6)


def test_out_of_memory_moves_the_experts_and_asks_again(tmp_path, monkeypatch):
    told = []
    evaluate, genes = evaluator(pool(tmp_path, 2), "task_arithmetic", tell=told.append)
    wanted = evaluate(Query([0.4] * len(genes)))
    rate, full = LiveMerge.rate, ["device", "host"]

    def rate_or_fail(self, *arguments):
        if self.kept.memory in full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return rate(self, *arguments)

    monkeypatch.setattr(LiveMerge, "rate", rate_or_fail)
    assert evaluate(Query([0.4] * len(genes))) == wanted
    assert evaluate.live.kept.memory == "disk" and len(told) == 2 and "on the disk" in told[1]
    full.append("disk")
    with pytest.raises(SearchError, match=r"Set a smaller compute.batch_tokens"):
        evaluate(Query([0.4] * len(genes)))


def test_what_a_whole_tensor_shows_is_found_once_for_the_same_numbers(tmp_path, monkeypatch):
    evaluate, genes = evaluator(pool(tmp_path, 2), "ties")
    calls, original = [], TensorInputs._each_delta
    monkeypatch.setattr(TensorInputs, "_each_delta", lambda *found: calls.append(1) or original(*found))
    tensors = len(dict(evaluate.live.model.model.named_parameters()))
    for weight in (0.3, 0.4, 0.5):
        evaluate(Query([weight if gene.parameter == "weight" else 0.5 for gene in genes]))
    assert len(calls) == tensors
    evaluate(Query([0.4] * len(genes)))
    assert len(calls) == 2 * tensors


# The data


def test_shares_are_the_same_for_equal_queries_and_together_are_everything(tmp_path):
    base, _ = pool(tmp_path, 1)
    model = TransformersModel.load(base, name="base", device="cpu")
    data = SearchData(model, {"safety": [Question(f"what is {i} ?", f"it is {i}") for i in range(20)]}, 1, selection=0.2)
    assert (data.count("search", "safety"), data.count("selection", "safety")) == (16, 4)

    def rows(query):
        return {tuple(row.tolist()) for batch in data.batches("safety", query) for row in batch.input_ids}

    quarters = [rows(Query([], share=0.25, part=part)) for part in range(4)]
    assert all(len(quarter) == 4 for quarter in quarters) and set.union(*quarters) == rows(Query([]))
    assert rows(Query([], share=0.25, part=4)) == quarters[0] and not rows(Query([])) & rows(Query([], split="selection"))
    again = SearchData(model, {"safety": [Question(f"what is {i} ?", f"it is {i}") for i in range(20)]}, 1, selection=0.2)
    assert [b.rows for b in again.batches("safety", Query([], share=0.5))] == [b.rows for b in data.batches("safety", Query([], share=0.5))]


def test_too_few_examples_to_set_some_aside_are_refused(tmp_path):
    base, _ = pool(tmp_path, 1)
    model = TransformersModel.load(base, name="base", device="cpu")
    with pytest.raises(SearchError, match="safety has 1 examples"):
        SearchData(model, {"safety": QUESTIONS[:1]}, 0, selection=0.2)
    with pytest.raises(SearchError, match="safety has 0 examples"):
        SearchData(model, {"safety": []}, 0)


def test_raw_text_is_the_prompt_the_answer_and_the_end(tmp_path):
    base, _ = pool(tmp_path, 1)
    model = TransformersModel.load(base, name="base", device="cpu")
    (found,) = model.tokenized(QUESTIONS[:1], raw=True)
    assert model.tokenizer.decode(found.prompt) == QUESTIONS[0].prompt
    assert found.answer[-1] == model.tokenizer.eos_token_id and model.tokenizer.decode(found.answer[:-1]).strip() == QUESTIONS[0].answer


# Imitation


def test_an_expert_imitates_itself_and_the_distance_is_kl_and_hidden_states(tmp_path):
    base, a, b = pool(tmp_path, 2)
    evaluate, _ = evaluator([base, a, b], "task_arithmetic", groups=LayerGroups(2), measure="imitation", teachers={"safety": "a"})
    assert evaluate(Query([1.0, 0.0]))["safety"].mean == pytest.approx(0, abs=1e-4)
    found = evaluate(Query([0.0, 0.0], with_slope=True))["safety"]
    mine, theirs = (LlamaForCausalLM.from_pretrained(folder) for folder in (base, a))
    rows = []
    for question in QUESTIONS:
        (batch,) = evaluate.live.model.encode([question])
        n = batch.answer_tokens
        outs = [m(**evaluate.live.model.forward_inputs(batch), output_hidden_states=True) for m in (theirs, mine)]
        p, q = (out.logits[0, -n - 1 : -1].log_softmax(-1) for out in outs)
        hidden = [torch.stack([h[0, -n - 1 : -1] for h in out.hidden_states[1:]]) for out in outs]
        rows.append(float(((p.exp() * (p - q)).sum(-1) + (hidden[0] - hidden[1]).square().mean((0, 2))).mean().detach()))
    assert found.mean == pytest.approx(-sum(rows) / 2, rel=0.02)  # teachers are kept in bfloat16
    assert found.slope[0] > 0  # nearer to the teacher is better


# Genes


def test_there_is_a_gene_for_each_number_that_is_not_given():
    ties, names = MERGE_METHODS.get("ties"), ["base", "a", "b"]
    found = genes_of(ties, names, 2, {"normalize": False})
    assert [(g.parameter, g.owner, g.group) for g in found] == [
        (parameter, owner, group) for group in (0, 1) for parameter in ("weight", "density") for owner in ("a", "b")
    ]
    assert {(g.parameter, g.start, g.low, g.high) for g in found} == {("weight", 1 / 3, 0.0, float("inf")), ("density", 1.0, 0.0, 1.0)}
    assert [g.parameter for g in genes_of(ties, names, 1, {"density": 0.5})] == ["weight", "weight"]
    assert [(g.parameter, g.owner) for g in genes_of(MERGE_METHODS.get("linear"), names, 1, {})] == [("weight", n) for n in names]
    assert [(g.parameter, g.start) for g in genes_of(MERGE_METHODS.get("slerp"), names[:2], 3, {})] == [("t", 0.5)] * 3


def test_a_genome_is_read_back_as_parameters():
    ties, names = MERGE_METHODS.get("ties"), ["base", "a", "b"]
    given = {"normalize": False, "lambda_": 0.9}
    genes = genes_of(ties, names, 2, given)
    genome = [i / 10 for i in range(len(genes))]
    found = decode(ties, genes, genome, names, 2, given)
    assert found.numbers == {"weight": [[0.0, 0.1], [0.4, 0.5]], "density": [[0.2, 0.3], [0.6, 0.7]], "lambda_": [[0.9], [0.9]]}
    assert found.options == {"normalize": False}


def test_searching_a_weight_that_cancels_out_is_refused():
    with pytest.raises(RecipeError, match=r"Set merge.parameters.normalize to false"):
        genes_of(MERGE_METHODS.get("ties"), ["base", "a"], 1, {})


def test_searching_nothing_is_refused():
    with pytest.raises(RecipeError, match="nothing is left to search"):
        genes_of(MERGE_METHODS.get("slerp"), ["base", "a"], 1, {"t": 0.5})
