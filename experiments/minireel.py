"""MiniReel from its films and grammar: simulate, check, measure, and fill in the data card.

    python -m experiments.minireel [--data FOLDER]

Writes the dialogues, interactions and oracle ranks of `data/minireel/`, measures how hard the test
set is, and writes `data/results/minireel.json` and the tables of the card. With FOLDER (`movies/`,
`redial/`, `inspired/`) it also checks the facts and plots of the films against other tables and
sets the statistics beside ReDial's and INSPIRED's; without it, those parts stay as they are.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from experiments.backbone import members
from pecrs_lib.baselines import fit_baselines
from pecrs_lib.data import Catalogue, Dialogue, read_dialogues
from pecrs_lib.data.describe import describe
from pecrs_lib.data.jsonl import write_bytes
from pecrs_lib.data.local import inspired_folder
from pecrs_lib.data.minireel import SPLITS, load_minireel, load_oracle
from pecrs_lib.data.movies import read_catalogue
from pecrs_lib.data.processed import read_movie_db
from pecrs_lib.evaluation import as_records, predict, recall_table
from pecrs_lib.metrics import recall_at_k
from pecrs_lib.simulator.simulate import Simulation, simulate
from pecrs_lib.simulator.world import Knobs

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "data" / "minireel"
RESULT = ROOT / "data" / "results" / "minireel.json"
SIZES = {"train": 3200, "valid": 300, "test": 500}
SEED = 0


def write(simulation: Simulation) -> None:
    """The files of a simulated corpus; equal corpora give equal bytes."""
    for split, dialogues in simulation.dialogues.items():
        write_bytes(lines(dialogues), FOLDER / f"{split}.jsonl.gz")
    write_bytes(lines(simulation.oracle), FOLDER / "oracle.jsonl.gz")
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["seeker", "time", "item", "liked", "split", "dialogue"])
    catalogue = read_catalogue(FOLDER / "films.jsonl")
    for seeker in simulation.seekers:
        for time, seen in enumerate(seeker.history):
            item, talk = catalogue[seen["row"]].id, seen["conversation"]
            rows.writerow([seeker.id, time, item, int(seen["liked"]), seeker.split,
                           "" if talk is None else talk])  # fmt: skip
    write_bytes(text.getvalue().encode(), FOLDER / "interactions.csv.gz")


def lines(rows: Iterable[Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


# -- what the corpus is like ----------------------------------------------------------------------


def distinct_2(dialogues: Sequence[Dialogue], n: int) -> float | None:
    """Distinct bigrams over bigrams, in the first n of them (the ratio falls with length)."""
    pairs: list[tuple[str, str]] = []
    for d in dialogues:
        for u in d.utterances:
            words = re.findall(r"[a-z0-9']+|[.,!?]", u.text.lower())
            pairs += pairwise(words)
        if len(pairs) >= n:
            break
    return len(set(pairs[:n])) / n if len(pairs) >= n else None


def statistics(dialogues: list[Dialogue]) -> dict[str, float]:
    counts = describe(dialogues)
    named = [u for d in dialogues for u in d.utterances]
    return {
        "dialogues": counts.dialogues,
        "films named": counts.items,
        "utterances per dialogue": counts.mean_turns,
        "words per utterance": counts.mean_words,
        "films named per dialogue": counts.mentions / counts.dialogues,
        "by the recommender": sum(len(u.mentions) for u in named if u.role == "recommender")
        / counts.dialogues,
    } | {f"distinct-2 of {n:,}": d for n in (100_000, 500_000) if (d := distinct_2(dialogues, n))}


def difficulty(catalogue: Catalogue, splits: dict[str, list[Dialogue]]) -> list[dict[str, Any]]:
    """Recall of the baselines and of the oracle on the test set, with intervals."""
    test = splits["test"]
    predictions = [predict(b, test, catalogue) for b in fit_baselines(splits["train"], catalogue)]
    like, ranks = predictions[0], load_oracle()
    ids = [test[k].id for k in like.dialogue]
    rank = [ranks[key] for key in zip(ids, like.turn.tolist(), like.item.tolist(), strict=True)]
    oracle = replace(like, name="Oracle", rank=np.array(rank, float), top1=np.full(len(rank), -1))
    predictions.append(oracle)
    return as_records(recall_table(predictions))


# -- what other tables say ------------------------------------------------------------------------


def plain(text: str) -> str:
    text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", " ", text.replace("&", "and")).strip()


def check_facts(catalogue: Catalogue, path: Path) -> dict[str, Any]:
    """Every title, year, actor, director and genre against a table of films."""
    table: dict[str, list[dict[str, Any]]] = {}
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        film = json.loads(line)
        table.setdefault(plain(film["title"]), []).append(film)
    missing, differ = [], []
    for movie in catalogue:
        same = [
            f for f in table.get(plain(movie.title), ())
            if f.get("year") and abs(f["year"] - (movie.year or 0)) <= 1
        ]  # fmt: skip
        if not same:
            missing.append(movie.name)
            continue
        for name in ("actors", "directors", "genres"):
            theirs = {plain(value) for f in same for value in f.get(name) or ()}
            extra = [v for v in getattr(movie, name) if plain(v) not in theirs]
            if extra:
                differ.append({"film": movie.name, "field": name, "not in the table": extra})
    return {"films": len(catalogue), "not found": missing, "differences": differ}


def check_plots(catalogue: Catalogue, folder: Path, n: int = 8) -> dict[str, Any]:
    """Runs of n words that a plot shares with any plot of the tables."""
    plots = [plot for plot in known_plots(folder) if plot]
    seen = {run for plot in plots for run in runs(plot, n)}
    shared = {}
    for movie in catalogue:
        words = plain(movie.plot).split()
        hits = [" ".join(words[k : k + n]) for k, h in enumerate(runs(movie.plot, n)) if h in seen]
        if hits:
            shared[movie.name] = hits
    return {"n": n, "plots compared": len(plots), "shared": shared}


def known_plots(folder: Path) -> Iterator[str]:
    """Every plot in the folder: film tables, the item texts of the two corpora, plot sentences."""
    sources = gzip.decompress((folder / "movies" / "movies_merged.jsonl.gz").read_bytes())
    for line in sources.decode().splitlines():
        yield from filter(None, (json.loads(line).get("plots") or {}).values())
    for catalogue in (
        read_movie_db(folder / "redial" / "movie_db"),
        inspired_folder(folder / "inspired")[0],
    ):
        yield from (movie.plot for movie in catalogue)
    for text in members(folder / "text" / "nltk_subjectivity.zip", "subjectivity/plot"):
        yield from text.splitlines()


def runs(text: str, n: int) -> list[int]:
    words = plain(text).split()
    return [hash(tuple(words[k : k + n])) for k in range(len(words) - n + 1)]


# -- the card -------------------------------------------------------------------------------------


def card(found: dict[str, Any]) -> None:
    """Rewrite the tables of the data card from the result file."""
    rows = ["| | " + " | ".join(found["statistics"]) + " |"]
    rows.append("|---" * (1 + len(found["statistics"])) + "|")
    for name in next(iter(found["statistics"].values())):
        values = [found["statistics"][s].get(name) for s in found["statistics"]]
        rows.append(f"| {name} | {' | '.join(shown(v) for v in values)} |")
    hard = ["| system | targets | n | R@1 | R@10 | R@50 |", "|---|---|---|---|---|---|"]
    for r in found["difficulty"]:
        recalls = [r[k] for k in ("R@1", "R@10", "R@50")]
        cells = [f"{v['value']:.1f} [{v['low']:.1f}, {v['high']:.1f}]" for v in recalls]
        hard.append(f"| {r['system']} | {r['targets']} | {r['n']} | " + " | ".join(cells) + " |")
    path = FOLDER / "README.md"
    text = path.read_text(encoding="utf-8")
    written = {"statistics": rows, "redial": redial(), "difficulty": hard, "checks": checks(found)}
    for name, table in written.items():
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)",
            lambda m, table=table: m[1] + "\n".join(table) + "\n" + m[2], text, flags=re.DOTALL,
        )  # fmt: skip
    path.write_text(text, encoding="utf-8")


def checks(found: dict[str, Any]) -> list[str]:
    """What `check_facts` and `check_plots` found, in words."""
    facts, plots = found["facts"], found["plots"]
    fields = Counter(row["field"] for row in facts["differences"])
    films = {row["film"] for row in facts["differences"]}
    counts = ", ".join(f"{name} of {n} films" for name, n in fields.most_common())
    rows = [
        f"- Facts: {len(facts['not found'])} of {facts['films']} films are missing there; "
        f"{len(films)} have something that the tables lack ({counts}).",
        f"- Plots: {len(plots['shared'])} of {facts['films']} share a run of {plots['n']} words "
        f"with one of {plots['plots compared']:,} plots and plot sentences.",
    ]
    for film, hits in plots["shared"].items():
        rows.append(f"  {film}: " + "; ".join(f"“{hit}”" for hit in hits))
    return rows


def redial() -> list[str]:
    """How hard ReDial is, from the record of `pecrs reproduce`."""
    record = json.loads((RESULT.parent / "runs" / "redial-data.json").read_text(encoding="utf-8"))
    recall = {}
    for name in ("Popularity", "Co-occurrence"):
        rank = np.array(record["baselines"][name]["rank"], float)  # null: a film without a place
        shares = [recall_at_k(np.nan_to_num(rank, nan=np.inf), k) for k in (1, 10, 50)]
        recall[name] = " / ".join(f"{share:.1f}" for share in shares)
    return [
        f"On ReDial popularity reaches {recall['Popularity']} and co-occurrence "
        f"{recall['Co-occurrence']}, of {len(record['items']):,} films (`runs/redial-data.json`)."
    ]


def shown(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if value < 1 else f"{value:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    args = parser.parse_args()
    knobs = Knobs()
    write(simulate(read_catalogue(FOLDER / "films.jsonl"), FOLDER, SIZES, knobs, SEED))
    catalogue, splits = load_minireel()
    found = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
    reel = [d for split in SPLITS for d in splits[split]]
    found |= {"seed": SEED, "knobs": asdict(knobs), "difficulty": difficulty(catalogue, splits)}
    found.setdefault("statistics", {})["MiniReel"] = statistics(reel)
    if args.data:
        found["facts"] = check_facts(catalogue, args.data / "movies" / "movies_merged.jsonl.gz")
        found["plots"] = check_plots(catalogue, args.data)
        redial = read_dialogues(args.data / "redial" / "train.jsonl.gz", "redial")
        order = np.random.default_rng(0).permutation(len(redial))[: len(reel)]
        others = {
            "ReDial (as many)": [redial[k] for k in order],
            "INSPIRED train": inspired_folder(args.data / "inspired")[1]["train"],
        }
        for name, dialogues in others.items():
            found["statistics"][name] = statistics(dialogues)
    RESULT.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    card(found)


if __name__ == "__main__":
    main()
