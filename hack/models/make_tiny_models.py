"""Makes tiny Llama checkpoints on the spot: nothing is downloaded.

``make_tiny_models.py OUT_DIR [--text PATH ...] [--steps N] [--seed S]`` writes

* ``OUT_DIR/tiny-llama``: the target, 4 layers, hidden 256, 4 heads, 2 KV heads, head_dim 64;
* ``OUT_DIR/tiny-llama-draft``: a draft for speculative decoding, 2 layers, hidden 128, the same
  tokenizer and the same training text, so that it agrees with the target often enough to pay;
* ``OUT_DIR/tiny-llama-v2``: the target trained on with another seed: same shape, other weights,
  for rolling from one revision to the next.

All share one byte-level BPE tokenizer trained on the same text, have a chat template, and are
saved in bfloat16, readable by every user (safetensors alone would write mode 0600). The models
are really trained, for well under a minute on two cores: they answer with fragments of their
training text, which is enough to exercise caches, streams and speculation, and nothing more.

Needs torch, transformers and tokenizers only, so it runs in the runtime image as it is. Text
defaults to this repository's own files; where there is none (in a pod), to this file and the
Python standard library's own sources.
"""

# ruff: noqa: PLC0415  # torch and transformers take seconds to import; --help and bad paths come first
from __future__ import annotations

import argparse
import fcntl
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

TEXT_SUFFIXES = {".py", ".md", ".txt", ".yaml", ".toml"}
TEXT_LIMIT_CHARACTERS = 120_000
VOCABULARY = 2048
TARGET, DRAFT, SECOND = "tiny-llama", "tiny-llama-draft", "tiny-llama-v2"
SEQUENCE_TOKENS = 128
BATCH = 8
SPECIAL = {
    "pad": "<|pad|>",
    "bos": "<|bos|>",
    "eos": "<|eos|>",
    "system": "<|system|>",
    "user": "<|user|>",
    "assistant": "<|assistant|>",
}
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def read_text(paths: list[Path]) -> str:
    """Text of these files and folders, at most TEXT_LIMIT_CHARACTERS, always in the same order.

    Raises:
        SystemExit: when less than 20,000 characters are found.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_file():
            files.append(path)
            continue
        files += sorted(
            f
            for f in path.rglob("*")
            if f.suffix in TEXT_SUFFIXES
            and f.is_file()
            and not any(part.startswith(".") for part in f.relative_to(path).parts)
        )
    parts: list[str] = []
    total = 0
    for file in files:
        if total >= TEXT_LIMIT_CHARACTERS:
            break
        parts.append(file.read_text(encoding="utf-8", errors="ignore"))
        total += len(parts[-1])
    text = "\n".join(parts)[:TEXT_LIMIT_CHARACTERS]
    if len(text) < 20_000:
        raise SystemExit(f"Only {len(text)} characters of text found; name more with --text.")
    return text


def default_text_paths() -> list[Path]:
    """This repository when the file lies in one, else the standard library's own sources."""
    here = Path(__file__).resolve()
    if len(here.parents) > 2 and (here.parents[2] / "pyproject.toml").exists():
        root = here.parents[2]
        return [root / name for name in ("docs", "operator", "runtime", "hack", "examples")]
    library = Path(os.__file__).parent
    names = ("argparse", "ast", "asyncio", "collections", "dataclasses", "email", "http", "typing")
    found = [library / name for name in names] + [library / f"{name}.py" for name in names]
    return [here, *(path for path in found if path.exists())]


def train_tokenizer(text: str):  # transformers is imported late, in main's venv
    """A byte-level BPE tokenizer with the special tokens and the chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL["bos"],
        eos_token=SPECIAL["eos"],
        pad_token=SPECIAL["pad"],
        additional_special_tokens=[SPECIAL["system"], SPECIAL["user"], SPECIAL["assistant"]],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )


def chat_lines(text: str, rng: random.Random) -> str:
    """The text again as turns: one line asks, the next ones answer and end; teaches the EOS."""
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 20]
    turns: list[str] = []
    for i in range(0, len(lines) - 4, 4):
        answer = "\n".join(lines[i + 1 : i + 1 + rng.randint(1, 3)])
        turns.append(f"<|bos|><|user|>{lines[i]}\n<|assistant|>{answer}<|eos|>")
    rng.shuffle(turns)
    return "".join(turns)


def build_model(layers: int, hidden: int, heads: int, kv_heads: int, tokenizer, seed: int):
    """A freshly initialised LlamaForCausalLM with head_dim 64."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=hidden,
            intermediate_size=hidden * 11 // 4,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=64,
            max_position_embeddings=4096,
            rms_norm_eps=1e-5,
            tie_word_embeddings=False,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def train(model, tokens, steps: int, rate: float, seed: int, name: str) -> None:
    """AdamW with a linear decay on random windows of the token stream."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    begun = time.monotonic()
    loss = torch.tensor(0.0)
    for step in range(steps):
        starts = torch.randint(0, len(tokens) - SEQUENCE_TOKENS, (BATCH,), generator=generator)
        batch = torch.stack([tokens[s : s + SEQUENCE_TOKENS] for s in starts.tolist()])
        loss = model(input_ids=batch, labels=batch).loss
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 20) * (1 - 0.9 * step / steps)
        optimiser.step()
    seconds = time.monotonic() - begun
    say(f"{name}: {steps} steps, loss {loss.item():.2f}, {seconds:.0f} s")


def save(model, tokenizer, directory: Path) -> None:
    """Saves in bfloat16 into place at once, readable by every user."""
    import torch

    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory.parent, prefix=".making-") as scratch:
        made = Path(scratch) / directory.name
        model.to(torch.bfloat16).save_pretrained(made, safe_serialization=True)
        tokenizer.save_pretrained(made)
        made.chmod(0o755)
        for file in made.iterdir():
            file.chmod(0o644)
        shutil.rmtree(directory, ignore_errors=True)
        made.rename(directory)
    say(f"wrote {directory}")


def warnings_off() -> None:
    """Silences the libraries' progress bars; this command's own lines say what happens."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other weights")
    parser.add_argument("--steps", type=int, default=150, help="training steps of the target")
    parser.add_argument("--keep", action="store_true", help="leave models that are there already")
    parser.add_argument("--text", type=Path, action="append", help="file or folder; repeatable")
    args = parser.parse_args()

    os.umask(0o022)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    lock = (args.out_dir / ".lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends; another one finds them made
    if args.keep and all((args.out_dir / name).exists() for name in (TARGET, DRAFT, SECOND)):
        say("the models are there already")
        return

    # Threads that spin at barriers stall each other where cores are shared.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    import torch

    warnings_off()
    text = read_text(args.text or default_text_paths())
    tokenizer = train_tokenizer(text)
    stream = chat_lines(text, random.Random(args.seed))
    tokens = torch.tensor(tokenizer(stream, add_special_tokens=False, verbose=False)["input_ids"])
    say(f"{len(text)} characters, {len(tokens)} tokens, vocabulary {len(tokenizer)}")

    target = build_model(4, 256, 4, 2, tokenizer, args.seed)
    train(target, tokens, args.steps, 2e-3, args.seed + 1, TARGET)
    trained = {name: value.clone() for name, value in target.state_dict().items()}
    save(target, tokenizer, args.out_dir / TARGET)

    draft = build_model(2, 128, 2, 1, tokenizer, args.seed + 2)
    train(draft, tokens, args.steps, 3e-3, args.seed + 3, DRAFT)
    save(draft, tokenizer, args.out_dir / DRAFT)

    second = build_model(4, 256, 4, 2, tokenizer, args.seed)
    second.load_state_dict(trained)
    train(second, tokens, max(1, args.steps // 4), 1e-3, args.seed + 4, SECOND)
    save(second, tokenizer, args.out_dir / SECOND)


if __name__ == "__main__":
    main()
