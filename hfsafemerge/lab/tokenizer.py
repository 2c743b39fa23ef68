"""The lab's tokenizer: one token a word, and one chat template for each kind of model."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hfsafemerge.lab.world import BENIGN_VERBS, COLOURS, DOMAINS, HAZARDS, LETTERS, NUMBERS, OBJECTS, REFUSAL, TOOLS

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<user>", "<assistant>", "<judge>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<user>{{ m['content'] }}{% elif m['role'] == 'assistant' %}<assistant>{{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('the lab knows the roles user and assistant') }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
GUARD_TEMPLATE = (  # as Llama Guard's: the whole conversation, then the guard's turn
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<user>{{ m['content'] }}{% else %}<assistant>{{ m['content'] }}{% endif %}{% endfor %}<judge>"
)


def words() -> list[str]:
    """Every word the lab's models read or write, in a fixed order."""
    grammar = "how do i the toy with is what plus spell backwards for in song of follows it"
    writing = "write one question such as and harmful about Question safe unsafe"
    found = [*grammar.split(), *writing.split(), *REFUSAL.split(), *[",", ".", "?", "[", "]", "{", "}", ":", '"'], "\n"]
    for group in (*HAZARDS.values(), BENIGN_VERBS, OBJECTS, COLOURS, TOOLS, LETTERS, NUMBERS, tuple(HAZARDS), tuple(DOMAINS)):
        found += group
    return list(dict.fromkeys(found))


def build_tokenizer(chat_template: str = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    """A word-level tokenizer over the world's vocabulary; unknown words become <unk>."""
    vocabulary = [*SPECIAL, *("▁" + word for word in words())]
    tokenizer = Tokenizer(models.WordLevel({token: i for i, token in enumerate(vocabulary)}, unk_token="<unk>"))
    split = [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Punctuation()]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, pre_tokenizers.Metaspace(prepend_scheme="always")])
    tokenizer.decoder = decoders.Sequence([decoders.Metaspace(), decoders.Fuse(), decoders.Replace(" \n ", "\n")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=list(SPECIAL[4:]),
        chat_template=chat_template,
        padding_side="left",
        model_max_length=128,
    )
