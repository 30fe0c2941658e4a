"""`make demo`: a small PECRS from nothing, end to end, on two cores and without a network.

Writes a small made-up data set, pre-trains a tiny language model on its training text, trains
PECRS in a single stage, ranks the test set beside every baseline, and holds a short conversation.
The data are a stand-in (a theme, and films about it), the model is tiny and trains for seconds: the
run shows that every part works. Expect PECRS near "Popularity" and below BM25, which finds the
theme's word in the plot; the numbers on people's dialogues are in `data/results/`.
"""

from __future__ import annotations

import time
from pathlib import Path

from transformers.utils import logging

from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues, text_metrics
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.config import TINY
from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.data.describe import describe
from pecrs_lib.data.jsonl import read_jsonl, write_jsonl
from pecrs_lib.data.movies import read_catalogue, write_catalogue
from pecrs_lib.evaluation import as_records, predict, recall_table
from pecrs_lib.figures import history_figure, recall_figure, save
from pecrs_lib.generation import GREEDY, respond
from pecrs_lib.model import PECRS
from pecrs_lib.pretrain import PretrainConfig, dialogue_text, item_documents, pretrain
from pecrs_lib.training import Trainer
from tests.toys import themed_data

OUT = Path("runs") / "demo"
LM = PretrainConfig(
    vocab_size=1024, n_layer=2, n_embd=128, n_head=4, n_positions=1024, batch_size=4, steps=60,
    warmup_steps=10,
)  # fmt: skip
CONFIG = TINY.with_(
    backbone=str(OUT / "backbone"), epochs=6, negatives=60, candidates=60, learning_rate=2e-3,
    head_learning_rate=2e-3, seed=0,
)  # fmt: skip


def main() -> None:
    logging.disable_progress_bar()
    started = time.time()
    OUT.mkdir(parents=True, exist_ok=True)
    print("1. Data: 240 made-up dialogues about 120 made-up films (no real person, no real film)")
    catalogue, dialogues = themed_data()
    write_catalogue(catalogue, OUT / "catalogue.jsonl")
    for name, part in {
        "train": dialogues[:180], "valid": dialogues[180:200], "test": dialogues[200:]
    }.items():  # fmt: skip
        write_jsonl(part, OUT / f"{name}.jsonl")
    catalogue = read_catalogue(OUT / "catalogue.jsonl")
    train, valid, test = (read_jsonl(OUT / f"{n}.jsonl") for n in ("train", "valid", "test"))
    print(describe(train, catalogue).table())

    print("\n2. A tiny language model, from the training text alone")
    documents = [dialogue_text(d) for d in train] + item_documents(catalogue)
    held_out = [text for d in valid if (text := dialogue_text(d)) not in documents]
    pretrain(documents, held_out, OUT / "backbone", LM, every=60)

    print("\n3. PECRS: three losses, a single stage")
    model = PECRS.from_backbone(CONFIG)
    print(f"   {model.parameter_table()}: {100 * model.trainable_share:.1f} % of the weights train")
    trainer = Trainer(model, catalogue, train, valid, OUT / "run")
    if trainer.resume():
        print("   going on from the last checkpoint")
    history = trainer.fit()
    print(history.round(2).to_string(index=False))
    save(history_figure(history), OUT / "training.png")

    print("\n4. The test set, beside every baseline (recall in percent, 95 % intervals)")
    model = PECRS.from_pretrained(OUT / "run" / "best")
    v = item_vectors(model, catalogue, cache_dir=OUT / "run" / "cache")
    ranked = rank_dialogues(model, test, catalogue, v)
    predictions = [predict(b, test, catalogue) for b in fit_baselines(train, catalogue)]
    predictions.append(predictions_of(ranked, test, catalogue))
    table = recall_table(predictions)
    print(table.round(1).to_string(index=False))
    print(f"   perplexity of the true responses: {text_metrics(ranked)['perplexity']:.2f}")
    save(recall_figure(as_records(table)), OUT / "recall.png")

    print("\n5. A conversation")
    said: list[Utterance] = []
    for text in ("Hi! I would like a film about dragons", "I know that one, what else is there?"):
        said.append(Utterance("seeker", text))
        (reply,) = respond(model, [Dialogue("demo", tuple(said))], catalogue, v, **GREEDY)
        print(f"   seeker:      {text}\n   recommender: {reply.text}")
        for r in reply.ranked[:3]:
            print(f"      {r.score:7.2f}  {r.movie.name} (place {r.retrieved} before re-ranking)")
        said.append(Utterance("recommender", reply.text))
    print(f"\nDone in {time.time() - started:.0f} s. Figures and checkpoint are in {OUT}/.")


if __name__ == "__main__":
    main()
