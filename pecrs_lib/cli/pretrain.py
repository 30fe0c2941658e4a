"""``pecrs pretrain``: a small language model of one's own from dialogues, films and plain text."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Annotated

import typer

from pecrs_lib.cli.options import CatalogueOption, FormatOption
from pecrs_lib.cli.terminal import say, show, stop, watched


def pretrain(
    out: Annotated[Path, typer.Option("--out", help="Folder of the model.")],
    held_out: Annotated[
        Path,
        typer.Option("--held-out", help="Dialogues to measure perplexity, not to train on."),
    ],
    format: FormatOption,
    keep_out: Annotated[
        list[Path] | None,
        typer.Option(
            "--keep-out",
            help="Dialogues that must not be in the text, as a test set; may be repeated.",
        ),
    ] = None,
    dialogues: Annotated[
        list[Path] | None, typer.Option("--dialogues", help="To train on; may be repeated.")
    ] = None,
    catalogue: CatalogueOption = None,
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="A text file, documents parted by empty lines; .gz is fine."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option("--start", help="Go on from this model, with its tokenizer.")
    ] = None,
    layers: Annotated[int, typer.Option(min=1)] = 4,
    dim: Annotated[int, typer.Option(min=8, help="Hidden size, a multiple of the heads.")] = 128,
    heads: Annotated[int, typer.Option(min=1)] = 4,
    positions: Annotated[int, typer.Option(min=8, help="Longest sequence, in tokens.")] = 512,
    vocabulary: Annotated[int, typer.Option(min=260, help="Pieces of the tokenizer.")] = 8192,
    steps: Annotated[int, typer.Option(min=1, help="Of 8 × positions tokens.")] = 1500,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the cosine.")] = 2e-3,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Matrix products in bfloat16; pays on some CPUs.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
) -> None:
    """Pre-train a byte-level BPE tokenizer and a GPT-2 on your texts.

    Run the same command again to go on after an interruption. The folder holds what
    AutoModelForCausalLM loads, and pretrain.json with the settings and the loss curve.
    Nothing is trained if a dialogue of --held-out or --keep-out stands in the training text, or
    two of its longer utterances do.

    \b
    Example:
      pecrs pretrain --format redial --dialogues train_data.jsonl --held-out valid.jsonl \\
        --keep-out test_data.jsonl --out my-backbone
      pecrs train --backbone my-backbone …
    """
    from pecrs_lib.cli.inputs import load_catalogue, load_dialogues
    from pecrs_lib.cli.trained import quieten
    from pecrs_lib.documents import EOS, dialogue_text, item_documents
    from pecrs_lib.pretrain import PretrainConfig
    from pecrs_lib.pretrain import pretrain as run

    items = load_catalogue(catalogue)
    documents = [dialogue_text(d) for d in load_dialogues(dialogues or [], format, items)]
    sources = {"dialogues": len(documents)}
    if items is not None:
        documents += item_documents(items)
        sources["films"] = len(items)
    for path in text or []:
        raw = path.read_bytes()
        content = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode("utf-8")
        parts = [part.strip() + EOS for part in content.split("\n\n") if part.strip()]
        documents += parts
        sources[path.name] = len(parts)
    if not documents:
        stop("nothing to train on: give --dialogues, --catalogue or --text")
    if dim % heads:
        stop(f"--dim must be a multiple of --heads, got {dim} and {heads}")
    quieten()
    say(f"training text: {', '.join(f'{n:,} {name}' for name, n in sources.items())}")
    config = PretrainConfig(
        vocab_size=vocabulary, n_layer=layers, n_embd=dim, n_head=heads, n_positions=positions,
        steps=steps, warmup_steps=max(1, steps // 20), learning_rate=lr, bfloat16=bfloat16,
        seed=seed,
    )  # fmt: skip

    def written(path: Path) -> list[str]:
        return [dialogue_text(d) for d in load_dialogues([path], format, items)]

    folder = run(
        documents, {held_out.name: written(held_out)}, out, config,
        kept_out={str(path): written(path) for path in keep_out or []}, start=start,
        sources=sources, show=watched(),
    )  # fmt: skip
    show(f"the language model is in {folder}")
