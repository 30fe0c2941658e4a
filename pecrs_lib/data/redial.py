"""ReDial (Li et al., 2018) as `Dialogue`s: the corpus of the paper's main results (Table 2).

A reader of the first step of the flow. It accepts

- the official raw form, one JSON object per line (``train_data.jsonl``) or one JSON array;
- the same with messages already merged and extra keys in them, as derived corpora ship it;
- a form with speakers and titles resolved: ``turns: [{role, text, movies: [[id, name], …]}]``,
  told by its key ``turns``.

Roles: the *initiator* of a conversation looks for a film and is the seeker, the *respondent* is
the recommender. Where the worker ids that say so are missing, the two forms that the workers
filled in afterwards decide: ``suggested`` is 1 for a film the recommender suggested and 0 for one
the seeker brought up, so each film votes for the speaker who mentioned it first. On 2,270
conversations with known ids the vote was right in 2,244, wrong in 5 and tied in 21; a tie raises.

Texts: HTML entities are unescaped, and ``@135508`` becomes the film's name, ``The Babadook
(2014)``, which the `Mention` spans. An ``@`` number that ``movieMentions`` does not list stays
text; a listed film without a name stays ``@`` and its number, with a mention around it. Films that
``movieMentions`` lists and no message names yield no mention: no turn belongs to them.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

from pecrs_lib.data.files import Field, json_records, stem
from pecrs_lib.data.schema import DataError, Dialogue, Mention, Role, Utterance
from pecrs_lib.data.spans import fill, locate, merge_consecutive, squeeze

_MENTION = re.compile(r"@(\d+)", re.ASCII)
_ESCAPED = re.compile(r"(?:%[0-9A-F]{2})+")  # as addresses have it: "Why Him%3F (2016)"


def clean_name(name: str) -> str:
    """``"Why Him? (2016)"`` for ``"Why Him%3F  (2016)"``: a name as ReDial stores it, cleaned."""
    return squeeze(_ESCAPED.sub(lambda match: unquote(match[0]), html.unescape(name)))


def read_redial(path: str | Path, merge: bool = True) -> list[Dialogue]:
    """Read a ReDial file (``.jsonl``, ``.json``, either gzipped).

    `merge` joins consecutive messages of one speaker into one utterance (paper, section 4.1).
    A dialogue's id is its ``conversationId``; without one, or when it was used before, it is
    ``<file>:<line>``, for example ``train:17``.
    """
    dialogues: list[Dialogue] = []
    used: set[str] = set()
    for i, record in enumerate(json_records(path), start=1):
        utterances = _recovered(record) if record.has("turns") else _raw(record)
        name = f"{stem(path)}:{record.line or i}"
        given = record.value.get("conversationId")
        if given not in (None, ""):
            identifier = record.get("conversationId").identifier()
            name = name if identifier in used else identifier
        if name in used:
            raise record.error(f"dialogue id {name!r} is taken")
        used.add(name)
        dialogues.append(Dialogue(name, merge_consecutive(utterances) if merge else utterances))
    return dialogues


def read_liked(path: str | Path) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """What seekers say in the form after the conversation, of the raw form: which films they liked.

    Returns:
        the names of all films that ``movieMentions`` lists, by id; and for each conversation the
        ids that ``initiatorQuestions`` calls liked, those named in the messages first, in order.
    """
    names: dict[str, str] = {}
    liked = []
    for record in json_records(path):
        mine = _names(record.get("movieMentions"))
        names |= mine
        form = record.get("initiatorQuestions")  # without answers it is [] in the official files
        answered = form.value if isinstance(form.value, dict) else {}
        texts = [message.get("text").text() for message in record.get("messages").each()]
        order = [m[1] for text in texts for m in _MENTION.finditer(text)]
        films = (item for item in dict.fromkeys([*order, *answered]) if item in mine)
        liked.append(
            tuple(j for j in films if j in answered and form.get(j).get("liked").value == 1)
        )
    return names, liked


def _raw(record: Field) -> tuple[Utterance, ...]:
    messages = record.get("messages").each()
    names = _names(record.get("movieMentions"))
    senders = [message.get("senderWorkerId").identifier() for message in messages]
    texts = [html.unescape(message.get("text").text()) for message in messages]
    roles = _roles(record, senders, texts, names)

    def name(match: re.Match[str]) -> tuple[str, str] | None:
        item = match[1]
        return (item, names[item] or match[0]) if item in names else None

    utterances = []
    for message, sender, text in zip(messages, senders, texts, strict=True):
        if sender not in roles:
            raise message.get("senderWorkerId").error(
                f"worker {sender} is neither the initiator nor the respondent"
            )
        utterances.append(Utterance(roles[sender], *fill(text, _MENTION, name)))
    return tuple(utterances)


def _names(field: Field) -> dict[str, str]:
    """Film id -> name; an empty ``movieMentions`` is written ``[]`` in the official files."""
    if field.value in ([], None):
        return {}
    if not isinstance(field.value, dict):
        raise field.error("an object {movie id: name} is expected")
    return {
        item: "" if value is None else clean_name(field.get(item).text())
        for item, value in field.value.items()
    }


def _roles(
    record: Field, senders: list[str], texts: list[str], names: dict[str, str]
) -> dict[str, Role]:
    keys = ("initiatorWorkerId", "respondentWorkerId")
    if all(record.has(key) for key in keys):
        seeker, recommender = (record.get(key).identifier() for key in keys)
        if seeker == recommender:
            raise record.get(keys[1]).error(f"worker {seeker} is both initiator and respondent")
        return {seeker: "seeker", recommender: "recommender"}
    speakers = list(dict.fromkeys(senders))
    if not speakers:
        return {}
    if len(speakers) > 2:
        raise record.get("messages").error(f"{len(speakers)} speakers, a dialogue has two")
    votes = _votes(record, senders, texts, names)
    ranked = sorted(speakers, key=lambda speaker: votes[speaker])
    if len(ranked) == 1 and votes[ranked[0]]:
        return {ranked[0]: "recommender" if votes[ranked[0]] > 0 else "seeker"}
    if len(ranked) == 1 or votes[ranked[0]] == votes[ranked[1]]:
        raise DataError(
            "missing, and 'initiatorQuestions' and 'respondentQuestions' do not tell the "
            "recommender from the seeker",
            path=record.path,
            line=record.line,
            field=keys[0],
        )
    return {ranked[0]: "seeker", ranked[1]: "recommender"}


def _votes(
    record: Field, senders: list[str], texts: list[str], names: dict[str, str]
) -> Counter[str]:
    """Per speaker: films first mentioned by them marked suggested, minus those marked not so."""
    first: dict[str, str] = {}  # film id -> who mentioned it first
    for sender, text in zip(senders, texts, strict=True):
        for match in _MENTION.finditer(text):
            if match[1] in names:
                first.setdefault(match[1], sender)
    votes: Counter[str] = Counter()
    for key in ("initiatorQuestions", "respondentQuestions"):
        form = record.value.get(key)
        for item, sender in first.items():
            answers = form.get(item) if isinstance(form, dict) else None
            suggested = answers.get("suggested") if isinstance(answers, dict) else None
            votes[sender] += (suggested == 1) - (suggested == 0)  # 2: did not say
    return votes


def _recovered(record: Field) -> tuple[Utterance, ...]:
    return tuple(_turn(turn) for turn in record.get("turns").each())


def _turn(turn: Field) -> Utterance:
    """A turn whose text carries the names: locate them, then clean them as in the raw form."""
    role = turn.get("role").role()
    text = html.unescape(turn.get("text").text())
    movies = turn.get("movies").each()
    if not movies:
        return Utterance(role, text)
    named = []
    for movie in movies:
        pair = movie.each()
        if len(pair) != 2:
            raise movie.error("a pair [movie id, name] is expected")
        named.append((pair[0].identifier(), html.unescape(pair[1].text())))
    parts, mentions, length, done = [], [], 0, 0
    for mention in locate(text, named):
        if mention.start is None or mention.end is None:
            mentions.append(mention)
            continue
        words = clean_name(text[mention.start : mention.end]) or text[mention.start : mention.end]
        before = text[done : mention.start]
        start = length + len(before)
        mentions.append(Mention(mention.item, start, start + len(words)))
        parts += [before, words]
        length, done = start + len(words), mention.end
    return Utterance(role, "".join([*parts, text[done:]]), tuple(mentions))
