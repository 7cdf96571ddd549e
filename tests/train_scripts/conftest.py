"""A tiny chat model in a folder, in the layout of transformers."""

import json

import jax
import pytest

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_chat_model(tmp_path_factory):
    """Folder of a random model with a byte-level tokenizer and a chat template."""
    tokenizers = pytest.importorskip("tokenizers")
    from jeff_llm.models import decoder, weights
    from jeff_llm.models.config import DecoderConfig
    from jeff_llm.models.language_model import LanguageModel
    from jeff_llm.models.tokenizer import from_directory

    folder = tmp_path_factory.mktemp("tiny-chat")
    special = ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.train_from_iterator(
        ["what is two and two", "red and blue"],
        tokenizers.trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = DecoderConfig(
        vocab_size=304,
        num_layers=2,
        width=32,
        mlp_width=64,
        num_heads=4,
        num_kv_heads=2,
        head_width=8,
        max_positions=128,
        tied=True,
    )
    params = decoder.init(config, key=jax.random.key(0))
    # Factors can teach nothing to logits that the embedding keeps near zero.
    params["embedding"] *= 30
    model = LanguageModel(config, params, from_directory(folder))
    return weights.save(model, folder)
