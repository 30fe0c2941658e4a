"""A data set by name, ready to train on: catalogue and dialogues of train, valid and test.

The last step of `data`, over its readers, splits and downloads; what the notebooks' parameter
``DATA`` chooses.
"""

from __future__ import annotations

from pecrs_lib.data.download import fetch
from pecrs_lib.data.minireel import load_minireel
from pecrs_lib.data.processed import read_movie_db, read_processed
from pecrs_lib.data.schema import Catalogue, DataError, Dialogue
from pecrs_lib.data.splits import split_by_dialogue

CORPORA = ("minireel", "inspired", "redial")


def load_corpus(name: str = "minireel") -> tuple[Catalogue, dict[str, list[Dialogue]]]:
    """The catalogue, and the dialogues of "train", "valid" and "test".

    Args:
        name: "minireel" comes with the package; "inspired" and "redial" are downloaded when first
            asked for, as the paper's authors prepared them. ReDial has no validation part of its
            own: a tenth of train is put aside, the same one every time.

    Raises:
        DataError: another name.
        DownloadError: no network, or other content than expected.
    """
    if name == "minireel":
        return load_minireel()
    if name not in CORPORA:
        raise DataError(f"there is no data set {name!r}; choose one of {', '.join(CORPORA)}")
    files = fetch(f"{name}-pecrs")
    catalogue = read_movie_db(files["movie_db"])
    train = read_processed(files["train_data_processed"], catalogue)
    test = read_processed(files["test_data_processed"], catalogue)
    if name == "inspired":
        valid = read_processed(files["dev_data_processed"], catalogue)
    else:
        train, valid, _ = split_by_dialogue(train)
    return catalogue, {"train": train, "valid": valid, "test": test}
