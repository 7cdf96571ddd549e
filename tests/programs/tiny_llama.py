"""Write a tiny random Llama with its tokenizer, and print its answers to questions.

usage: tiny_llama.py FOLDER MAX_TOKENS QUESTION...   for each question the number of
tokens of its prompt, and the greedy answer of at most so many tokens
"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# Of these the tokens are learned; the model says the tokens at random.
CORPUS = [
    "the weather will be fine over the hills and grey along the coast tomorrow",
    "nobody remembered where the wooden boxes with the old letters were stored",
    "every morning the baker counted loaves, coins and customers, in that order",
]


def write(folder: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerFast]:
    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        CORPUS,
        vocab_size=400,
        special_tokens=["<end>"],
        show_progress=False,
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, eos_token="<end>", pad_token="<end>"
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    end = tokenizer.eos_token_id
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=48,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            initializer_range=0.5,
            bos_token_id=end,
            eos_token_id=end,
            pad_token_id=end,
        )
    )
    # Without this the server ignores the temperature.
    model.generation_config.do_sample = True
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return model.eval(), tokenizer


def main(folder: str, max_tokens: str, *questions: str) -> None:
    model, tokenizer = write(Path(folder))
    found = []
    for question in questions:
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        length = prompt["input_ids"].shape[1]
        ids = model.generate(**prompt, max_new_tokens=int(max_tokens), do_sample=False)
        text = tokenizer.decode(ids[0, length:], skip_special_tokens=True)
        found.append((length, text))
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
