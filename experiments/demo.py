"""`make demo`: PECRS from data to a conversation, in three minutes on two cores, without a network.

Describes MiniReel, encodes its films, trains PECRS on the bundled language model (the retrieval
heads on the words of all dialogues, then all three losses on some), and ranks the test set beside
every baseline and beside the checkpoint that comes with the package, which was trained for longer
(`experiments.reel`). That one then holds a short conversation. A rerun goes on from the
last checkpoint and reuses the caches; `rm -r runs/demo` starts anew.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers.utils import logging

from pecrs_lib.assessment import item_vectors, predictions_of, rank_dialogues, text_metrics
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.calibration import calibrate
from pecrs_lib.checkpoint import replace_folder
from pecrs_lib.config import TINY, Config
from pecrs_lib.data import Dialogue, Mention, Utterance, bundled, describe, load_minireel
from pecrs_lib.decoding import GREEDY
from pecrs_lib.evaluation import as_records, predict, recall_table
from pecrs_lib.figures import recall_figure, save, training_figure
from pecrs_lib.generation import respond
from pecrs_lib.model import PECRS
from pecrs_lib.protocol import Progress, encode_windows
from pecrs_lib.training import Trainer
from pecrs_lib.warmstart import warm_start

OUT = Path("runs") / "demo"
DIALOGUES = 320  # of MiniReel's 3,200 in the single stage: what three minutes allow
CONFIG = TINY.with_(
    warm_start=20, epochs=1, candidates=25, batch_size=16, learning_rate=2e-3,
    head_learning_rate=3e-4, alpha=1.0, beta=0.5, gamma=0.5, warmup_epochs=0.1,
    repetition_scale=1.5,  # chosen on held-out dialogues: `experiments.repetition`
)  # fmt: skip
WEIGHTS = {  # what the parts of the model are
    "frozen": "the language model, frozen", "LoRA": "LoRA: small matrices beside the frozen ones",
    "tokens": "the four special tokens", "items": "items: pooling and head of the film vectors",
    "f": "f: head of the query", "g": "g: head of the re-rank score",
    "queries": "queries: pooling of what was said",
}  # fmt: skip
SAID = (
    "Hi! I am in the mood for something about robots, science fiction if possible.",
    "I have seen that one and liked it. What else?",
)


def bar(what: str) -> Progress:
    """A progress bar with a name, gone when it is done."""
    return lambda parts: tqdm(parts, desc=what, leave=False)


def main(
    out: Path = OUT, config: Config = CONFIG, dialogues: int = DIALOGUES, tests: int | None = None
) -> None:
    """All of it; `dialogues` to train on, and `tests` of the test set, for a shorter run."""
    logging.disable_progress_bar()
    started = time.time()
    out.mkdir(parents=True, exist_ok=True)

    print("1. MiniReel: real films, simulated dialogues")
    catalogue, splits = load_minireel()
    print(describe(splits["train"], catalogue).table())
    print("   (a data point is a film that a recommender names, or none: notebook 01)")

    print("\n2. The bundled language model, frozen; LoRA, four tokens and heads are trained")
    model = PECRS.from_backbone(config)
    print(f"   {100 * model.trainable_share:.0f} % of its weights are trained:")
    for part, count in model.parameter_table().items():
        print(f"      {count:>9,}  {WEIGHTS.get(part, part)}")

    print("\n3. Warm start: the retrieval heads alone, on the words and films of the dialogues")
    print("   (about a minute on two idle cores, longer beside other programs;")
    print("   it begins again if it is interrupted)")
    cache, warm, losses_file = out / "cache", out / "warm", out / "losses.json"
    losses: dict[str, Any] = {"warm start": [], "steps": []}
    if losses_file.exists():
        losses = json.loads(losses_file.read_text(encoding="utf-8"))
    if (warm / "pecrs.json").exists():
        print("   done before; going on from there")
        model = PECRS.from_pretrained(warm)
    else:
        print("   encoding the films once")
        features = model.item_features(catalogue, cache_dir=cache, progress=bar("films"))
        windows = encode_windows(splits["train"], catalogue, model)
        calibrate(model, windows, features)
        losses["warm start"] = warm_start(
            model, windows, features, catalogue, epochs=config.warm_start, read_lm=False,
            progress=bar("warm start"),
        )  # fmt: skip
        losses_file.write_text(json.dumps(losses) + "\n", encoding="utf-8")
        replace_folder(warm, model.save_pretrained)

    print(f"\n4. The single stage: three losses, on {dialogues} of the dialogues")
    order = np.random.default_rng(config.seed).permutation(len(splits["train"]))[:dialogues]
    train = [splits["train"][k] for k in order]
    trainer = Trainer(
        model, catalogue, train, splits["valid"][:40], out / "run", cache_dir=cache,
        on_step=lambda step, three: losses["steps"].append(three),
    )  # fmt: skip
    if trainer.resume():
        print("   going on from the last checkpoint")
    history = trainer.fit()
    print(history.round(2).to_string(index=False))
    losses_file.write_text(json.dumps(losses) + "\n", encoding="utf-8")
    save(training_figure(losses["warm start"], losses["steps"]), out / "training.png")
    trained = PECRS.from_pretrained(out / "run" / "best")
    shipped = PECRS.from_pretrained(bundled("checkpoints/minireel"))

    print("\n5. The test set, beside every baseline (recall in percent, 95 % intervals)")
    test = splits["test"][:tests]
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    for name, model in (("PECRS, trained here", trained), ("PECRS, as shipped", shipped)):
        v = item_vectors(model, catalogue, cache_dir=cache, progress=bar("films"))
        ranked = rank_dialogues(
            model, test, catalogue, v, candidates=config.candidates, progress=bar("test")
        )
        predictions.append(predictions_of(ranked, test, catalogue, name))
    table = recall_table(predictions)
    print(table.round(1).to_string(index=False))
    print(
        f"   perplexity of the true responses, as shipped: {text_metrics(ranked)['perplexity']:.2f}"
    )
    (out / "results.json").write_text(json.dumps(as_records(table), indent=1) + "\n")
    save(recall_figure(as_records(table)), out / "recall.png")

    print("\n6. A conversation with the model as shipped")
    said: list[Utterance] = []
    for text in SAID:
        said.append(Utterance("seeker", text))
        so_far = Dialogue("demo", tuple(said))
        (reply,) = respond(model, [so_far], catalogue, v, exclude_mentioned=True, **GREEDY)
        print(f"   seeker:      {text}\n   recommender: {reply.text}")
        for r in reply.ranked[:3]:
            print(f"      {r.score:7.2f}  {r.movie.name} (place {r.retrieved} before re-ranking)")
        named = [Mention(r.movie.id) for r in reply.ranked if r.movie.name in reply.text]
        said.append(Utterance("recommender", reply.text, tuple(named)))
    print(f"\nDone in {time.time() - started:.0f} s. Figures and checkpoint are in {out}/.")


if __name__ == "__main__":
    main()
