"""Training of the lab's small language models: next-token loss on the answers, deterministic from a seed."""

import random
from collections.abc import Callable, Sequence

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hfsafemerge.lab.behaviour import Row

IGNORED = -100


Draw = Callable[[random.Random], list[Row]]  # makes one batch


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A Llama of 3 layers and width 128 (about 0.6 million parameters), initialised from the seed alone."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=336,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # the norms stay at one
                parameter.normal_(0.0, config.initializer_range, generator=generator)
    return model


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Right-padded input ids, mask and labels, (rows, tokens), with the loss on the answers alone."""
    prompts = [tokenizer.apply_chat_template(row.messages, tokenize=False, add_generation_prompt=True) for row in rows]
    answers = [row.answer + tokenizer.eos_token for row in rows]
    prompt_ids = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    answer_ids = tokenizer(answers, add_special_tokens=False)["input_ids"]
    length = max(len(p) + len(a) for p, a in zip(prompt_ids, answer_ids, strict=True))
    ids = torch.full((len(rows), length), tokenizer.pad_token_id)
    labels = torch.full((len(rows), length), IGNORED)
    for i, (prompt, answer) in enumerate(zip(prompt_ids, answer_ids, strict=True)):
        end = len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer)
        labels[i, len(prompt) : end] = torch.tensor(answer)
    return {"input_ids": ids, "attention_mask": (ids != tokenizer.pad_token_id).long(), "labels": labels}


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    draw: Draw,
    *,
    steps: int,
    rate: float,
    seed: int,
    progress: Callable[[int], None] = lambda step: None,
) -> LlamaForCausalLM:
    """AdamW with a one-cycle schedule over the batches that `draw` makes. Trains in place and returns the model."""
    r = random.Random(seed)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for step in range(steps):
        model(**encode(draw(r), tokenizer)).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()
        progress(step + 1)
    model.eval()
    return model
