"""Dialogues and catalogues: types, readers, title matching, download."""

from pecrs_lib.data.corpora import CORPORA, load_corpus
from pecrs_lib.data.describe import Statistics, describe
from pecrs_lib.data.dialogue_csv import read_csv
from pecrs_lib.data.doubts import Doubt, doubts
from pecrs_lib.data.inspired import read_inspired
from pecrs_lib.data.jsonl import check_mentions, read_jsonl, write_jsonl
from pecrs_lib.data.matching import (
    Match,
    MatchReport,
    match_catalogue,
    match_titles,
    most_detailed,
)
from pecrs_lib.data.minireel import (
    Interaction,
    bundled,
    load_interactions,
    load_minireel,
    load_oracle,
)
from pecrs_lib.data.movies import read_catalogue, write_catalogue
from pecrs_lib.data.processed import read_movie_db, read_processed
from pecrs_lib.data.readers import FORMATS, read_dialogues
from pecrs_lib.data.redial import read_redial
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue, Mention, Movie, Role, Utterance
from pecrs_lib.data.splits import Split, split_by_dialogue

__all__ = [
    "CORPORA",
    "FORMATS",
    "Catalogue",
    "DataError",
    "Dialogue",
    "Doubt",
    "Interaction",
    "Match",
    "MatchReport",
    "Mention",
    "Movie",
    "Role",
    "Split",
    "Statistics",
    "Utterance",
    "bundled",
    "check_mentions",
    "describe",
    "doubts",
    "load_corpus",
    "load_interactions",
    "load_minireel",
    "load_oracle",
    "match_catalogue",
    "match_titles",
    "most_detailed",
    "read_catalogue",
    "read_csv",
    "read_dialogues",
    "read_inspired",
    "read_jsonl",
    "read_movie_db",
    "read_processed",
    "read_redial",
    "split_by_dialogue",
    "write_catalogue",
    "write_jsonl",
]
