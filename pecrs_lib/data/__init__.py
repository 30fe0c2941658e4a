"""Dialogues and catalogues: types, readers, title matching, download."""

from pecrs_lib.data.schema import Catalogue, DataError, Dialogue, Mention, Movie, Role, Utterance

__all__ = ["Catalogue", "DataError", "Dialogue", "Mention", "Movie", "Role", "Utterance"]
