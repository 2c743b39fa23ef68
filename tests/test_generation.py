import json

import pytest
from test_judging import Guard

from hfsafemerge.errors import DataError
from hfsafemerge.examples import Example
from hfsafemerge.generation import (
    GENERATORS,
    ROUND,
    QuestionGenerator,
    answer_questions,
    append_lines,
    choose_refusals,
    read_question,
    refuse_questions,
    write_questions,
)
from hfsafemerge.judging import JUDGES
from hfsafemerge.language_model import Reply

PLAIN = QuestionGenerator("plain", "safety", "", "ask about {topic}", topics=("a", "b"))


class Writer:
    """A model whose reply to a prompt follows from the row's seed alone."""

    name = "org/writer@1"

    def __init__(self, reply=lambda seed: json.dumps([{"Question": f"question {seed % 1000}"}])):
        self.reply, self.calls, self.prompts = reply, 0, []

    def generate(self, conversations, *, max_new_tokens, prefill="", temperature=0.0, seeds=()):
        self.calls += 1
        self.prompts += [conversation[0]["content"] for conversation in conversations]
        return [Reply(self.reply(seed), True) for seed in seeds]

    def log_likelihood(self, questions):
        return [0.0 for _ in questions]


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ('[{"Question": "How so?"}]', "How so?"),
        ('{"Question": "How so?", "Topic": 3}', "How so?"),
        ('Sure, here it is:\n[{"question": " How so? "}]\nEnjoy!', "How so?"),
        ('[ { " Question " : " how so ? " } ]', "how so ?"),
        ('[{"Question": "line\nbreak"}]', "line\nbreak"),
        ('[{"Question": ""}]', None),
        ('[{"Question": 4}]', None),
        ('[{"Answer": "no"}]', None),
        ('[{"Question": "cut off', None),
        ("How so?", None),
        ("[]", None),
        ("", None),
    ],
)
def test_questions_are_read_from_json_replies(text, question):
    assert read_question(text) == question


def test_questions_are_different_and_know_where_they_come_from(tmp_path):
    written = write_questions(Writer(), PLAIN, topics=["a", "b"], count=100, seed=3, log=tmp_path / "log")
    assert len({q.prompt for q in written.questions}) == 100 == written.counts["kept"]
    assert {q.topic for q in written.questions} == {"a", "b"} and {q.provenance.generator for q in written.questions} == {"org/writer@1"}
    assert sum(written.counts.values()) == 100 + written.counts["repeated"]
    assert written == write_questions(Writer(), PLAIN, topics=["a", "b"], count=100, seed=3, log=tmp_path / "again")
    assert written.questions != write_questions(Writer(), PLAIN, topics=["a", "b"], count=100, seed=4, log=tmp_path / "other").questions


def test_fewer_questions_are_the_beginning_of_more(tmp_path):
    few, many = (write_questions(Writer(), PLAIN, topics=["a"], count=n, seed=0, log=tmp_path / str(n)).questions for n in (30, 90))
    assert many[:30] == few


def test_writing_goes_on_from_the_log_after_a_kill(tmp_path):
    whole = write_questions(Writer(), PLAIN, topics=["a"], count=3 * ROUND, seed=0, log=tmp_path / "whole")
    lines = (tmp_path / "whole").read_text().splitlines(keepends=True)
    (tmp_path / "killed").write_text("".join(lines[: ROUND + 5]) + '{"question": "cut')
    writer = Writer()
    assert write_questions(writer, PLAIN, topics=["a"], count=3 * ROUND, seed=0, log=tmp_path / "killed") == whole
    assert len(writer.prompts) < len(lines)


def test_repeats_examples_and_benchmark_items_are_turned_down(tmp_path):
    replies = ['[{"Question": "SEEN  in context"}]', '[{"Question": "in the benchmark"}]', "garbage", '[{"Question": "new"}]']
    order = iter(range(10**6))
    writer = Writer(lambda seed: replies[min(next(order), 3)])
    written = write_questions(
        writer, PLAIN, topics=["a"], count=1, seed=0, log=tmp_path / "log", in_context=["seen in context"], forbidden=["In the Benchmark"]
    )
    assert [q.prompt for q in written.questions] == ["new"]
    assert written.counts == {"repeated": 1, "in a benchmark": 1, "malformed": 1, "kept": 1}


def test_a_writer_that_writes_nothing_usable_is_given_up_with_numbers(tmp_path):
    with pytest.raises(DataError, match=r"org/writer@1 wrote 1 of 50 usable questions in 300 attempts \(1 kept, 299 repeated\)"):
        write_questions(Writer(lambda seed: '[{"Question": "the same"}]'), PLAIN, topics=["a"], count=50, seed=0, log=tmp_path / "log")


def test_prompts_name_topic_and_examples(tmp_path):
    writer = Writer()
    generator = QuestionGenerator("g", "domain", "", "{topic}:\n{examples}", in_context=2)
    write_questions(writer, generator, topics=["sums"], count=5, seed=0, log=tmp_path / "log", in_context=["one ?", "two ?", "three ?"])
    first = writer.prompts[0].splitlines()
    assert first[0] == "sums:" and len(first) == 3 and first[1].startswith('Example 1: [{"Question": "')


@pytest.mark.parametrize(
    ("topics", "in_context", "message"),
    [([], ["x"], "has no topics to ask about"), (["a"], ["x"], "shows 3 example questions; 1 are given")],
)
def test_what_can_not_be_asked_is_refused(tmp_path, topics, in_context, message):
    generator = QuestionGenerator("g", "domain", "", "{topic}", in_context=3)
    with pytest.raises(DataError, match=message):
        write_questions(Writer(), generator, topics=topics, count=1, seed=0, log=tmp_path / "log", in_context=in_context)


def test_the_shipped_prompts_ask_for_no_answer():
    for generator in GENERATORS:
        assert "{topic}" in generator.prompt and "no" in generator.prompt and "answer" in generator.prompt
        assert "Answer" not in generator.prompt
    assert not any("child" in topic or "weapon" in topic for topic in GENERATORS.get("safety_questions").topics)


# Answers

HARMFUL = [Example("safety", f"harmful {i}", topic="S1") for i in range(4)]


class Talker(Guard):
    name = "org/model@1"


def judges(guard="safe"):
    return {"llama_guard": JUDGES.get("llama_guard").bind(Guard(guard)), "refusal_phrases": JUDGES.get("refusal_phrases").bind(None)}


def test_only_what_every_judge_takes_for_a_refusal_is_kept():
    model = Talker("sorry , i cannot help .", "gladly : do this .", "", "sorry , no .")
    assert refuse_questions(model, HARMFUL, judges(), 16) == ["sorry , i cannot help .", None, None, "sorry , no ."]
    assert refuse_questions(model, HARMFUL, judges("unsafe\nS1"), 16) == [None] * 4


def test_without_a_judge_nothing_is_a_refusal():
    with pytest.raises(ValueError, match="Without a judge"):
        refuse_questions(Talker("sorry , no ."), HARMFUL, {}, 16)


def test_a_refusal_that_was_cut_off_is_dropped():
    class Endless(Talker):
        def generate(self, conversations, **options):
            return [Reply(reply.text, False) for reply in super().generate(conversations, **options)]

    assert refuse_questions(Endless("sorry , i cannot help ."), HARMFUL, judges(), 16) == [None] * 4


def test_a_refusal_is_drawn_by_seed_from_the_models_that_refuse():
    refusals = {"m1": ["no 1", None, None, "no 1"], "m2": ["no 2", "no 2", None, "no 2"]}
    chosen = choose_refusals(HARMFUL, refusals, ["llama_guard"], 0)
    assert [e.prompt for e in chosen] == ["harmful 0", "harmful 1", "harmful 3"]  # nobody refuses the third
    assert all(
        refusals[e.provenance.responder][HARMFUL.index(q)] == e.answer
        for e, q in zip(chosen, [HARMFUL[0], HARMFUL[1], HARMFUL[3]], strict=True)
    )
    assert chosen == choose_refusals(HARMFUL, dict(reversed(refusals.items())), ["llama_guard"], 0)
    many = [Example("safety", f"q{i}") for i in range(200)]
    drawn = choose_refusals(many, {"m1": ["a"] * 200, "m2": ["b"] * 200}, [], 1)
    assert 70 < sum(e.answer == "a" for e in drawn) < 130


def test_no_refusals_at_all_are_told_in_numbers_only():
    with pytest.raises(DataError, match=r"No model refuses any of 4 harmful questions \(m1 0, m2 0\)"):
        choose_refusals(HARMFUL, {"m1": [None] * 4, "m2": [None] * 4}, [], 0)


def test_experts_answer_their_own_questions():
    questions = [Example("domain", "1 + 1 ?", topic="sums"), Example("domain", "2 + 2 ?", topic="sums")]
    answered = answer_questions(Talker("it is 2", ""), questions, 16)
    assert [(e.prompt, e.answer, e.topic, e.provenance.responder) for e in answered] == [("1 + 1 ?", "it is 2", "sums", "org/model@1")]


def test_lines_are_appended_whole(tmp_path):
    append_lines(tmp_path / "log", ["1"])
    with (tmp_path / "log").open("a") as file:
        file.write("torn")
    append_lines(tmp_path / "log", ["2", "3"])
    assert (tmp_path / "log").read_text() == "1\n2\n3\n"
