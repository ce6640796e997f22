# SPDX-License-Identifier: Apache-2.0
"""Write the sandbox's model: a seeded random Llama of 230,000 parameters with its own tokenizer and chat template.

Usage: tiny_model.py DIRECTORY. Runs inside the engine's image, without network. The head dimension is 32 because vLLM's
CPU attention dies on its first request with 16; 4 attention heads and 2 KV heads split evenly over two ranks.
"""

from __future__ import annotations

import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 1024
CONTEXT = 4096
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}"
    "{% for message in messages %}<|{{ message['role'] }}|>\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}"
    "<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
WORDS = (
    "rack server driver fabric kernel engine tensor parallel model token prompt answer gateway upstream probe drain "
    "certificate firewall secret rotate reload restart observe alert night operator fleet plan host port"
).split()


def tokenizer() -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on a corpus made of WORDS and fill it up, so that every id of the vocabulary decodes."""
    walks = [(start, stride) for start in range(8) for stride in range(1, 9)]
    corpus = [" ".join(WORDS[(start + step * stride) % len(WORDS)] for step in range(40)) for start, stride in walks]
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    trained.train_from_iterator(corpus, trainer)
    trained.add_tokens([f"word{index} " for index in range(VOCABULARY - trained.get_vocab_size())])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=CONTEXT,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def main() -> None:
    """Write model, tokenizer and chat template into the directory given on the command line."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(sys.argv[1], safe_serialization=True)
    tokenizer().save_pretrained(sys.argv[1])


if __name__ == "__main__":
    main()
