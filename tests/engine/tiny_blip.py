"""A multimodal model of a million random weights: it takes pictures, and says nothing of worth.

BLIP-2, since the CPU image has no torchvision, which most kinds need.
"""

from __future__ import annotations

from pathlib import Path

IMAGE_TOKEN = "<image>"


def make_tiny_blip(like: Path, folder: Path) -> None:
    """Writes a BLIP-2 checkpoint with tokenizer and chat template of the Llama model ``like``."""
    import torch
    from transformers import (
        AutoConfig,
        AutoTokenizer,
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        Blip2QFormerConfig,
        Blip2VisionConfig,
        BlipImageProcessorPil,
    )

    tokenizer = AutoTokenizer.from_pretrained(like)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    speaks = AutoConfig.from_pretrained(like)
    speaks.vocab_size = len(tokenizer)
    sees = Blip2VisionConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    joins = Blip2QFormerConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        encoder_hidden_size=64,
    )
    config = Blip2Config(
        vision_config=sees.to_dict(),
        qformer_config=joins.to_dict(),
        text_config=speaks.to_dict(),
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
    )
    Blip2ForConditionalGeneration(config).to(torch.bfloat16).save_pretrained(folder)
    Blip2Processor(
        image_processor=BlipImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer=tokenizer,
        num_query_tokens=4,
    ).save_pretrained(folder)
