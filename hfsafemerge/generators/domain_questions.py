"""Questions of a domain, which each expert writes for itself after three examples."""

from hfsafemerge.generation import GENERATORS, QuestionGenerator

PROMPT = """\
You are an expert in {topic} and set practice questions for an exam. Write one new question, and only the question: no
answer and no explanation.
{examples}
Reply with JSON alone, in the form of the examples."""

GENERATORS.add(
    "domain_questions",
    QuestionGenerator(
        "domain_questions",
        "domain",
        "after arXiv:2406.14563, figure 4",
        PROMPT,
        prefill='[{"Question": "',
        in_context=3,
        temperature=0.8,
        max_new_tokens=1024,
    ),
)
