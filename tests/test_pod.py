"""POD: ids and their leak, prompts, padding, training, beam search, scores."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest
import torch

from pecrs_lib import next_item
from pecrs_lib.config import Config
from pecrs_lib.data import Movie, load_minireel
from pecrs_lib.data.interactions import Interactions, leave_one_out, read_amazon, read_movielens
from pecrs_lib.model import PECRS
from pecrs_lib.pod import context_prompt, context_tables, item_ids, leak, pictures, samples, tables
from pecrs_lib.pod.batches import IGNORED, alternated, collate, mixed
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.explanations import gives_a_reason, minireel_data
from pecrs_lib.pod.model import POD
from pecrs_lib.pod.prompt_tuning import tuned
from pecrs_lib.pod.prompts import BARE, TEMPLATES, Sample, all_texts, fill
from pecrs_lib.pod.recommending import Trie, answers, ask, ranked_items, ranked_lists
from pecrs_lib.pod.training import train, training_batch
from pecrs_lib.pod.vocabulary import EOS, Vocabulary
from pecrs_lib.protocol import encode_windows, rank_windows

N, U = 30, 40
TINY = PODConfig(
    width=32, layers=1, heads=2, feed=64, candidates=5, batch=32, steps=280, learning_rate=1e-2,
    warmup=20, words=300, prompts=2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    """Users who walk through the items in steps of one: the next item follows from the last."""
    rng = np.random.default_rng(0)
    users = tuple(tuple((start + np.arange(7)) % N) for start in rng.integers(N, size=U).tolist())
    names = tuple(f"i{j}" for j in range(N))
    whole = Interactions(names, names, names, tuple(tuple(map(int, u)) for u in users))
    return leave_one_out(whole)


@pytest.fixture(scope="module")
def sentences(data):
    return [Sample(2, u, (items[0],), f"film {items[0] % 3} is fine") for u, items in
            enumerate(data.train.users)]  # fmt: skip


@pytest.fixture(scope="module")
def vocabulary(sentences):
    codes = item_ids.random_ids(N, np.random.default_rng(0))
    return Vocabulary(codes, U, all_texts() + [s.answer for s in sentences], TINY.words)


@pytest.fixture(scope="module")
def trained(data, sentences, vocabulary):
    model = POD(TINY, len(vocabulary))
    train(model, data.train, sentences, vocabulary)
    return model


# -- ids and the leak -----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 10, 101, 600])
def test_ids_are_different(n):
    train = [tuple(np.random.default_rng(u).permutation(n)[:5].tolist()) for u in range(50)]
    for codes in (
        item_ids.random_ids(n, np.random.default_rng(0)),
        item_ids.cluster_ids(train, n, np.random.default_rng(0), size=8),
    ):
        assert len(np.unique(codes, axis=0)) == n
    assert codes[:, 1].max() < 8


def test_clusters_hold_what_the_same_users_take():
    train = [tuple(range(10 * (u % 2), 10 * (u % 2) + 10)) for u in range(20)]
    codes = item_ids.cluster_ids(train, 20, np.random.default_rng(0), size=10)
    assert len(set(codes[:10, 0])) == len(set(codes[10:, 0])) == 1
    assert codes[0, 0] != codes[10, 0]


def test_numbers_in_order_of_first_appearance():
    numbers = item_ids.appearance_numbers([(3, 1), (1, 0, 3)], 5)
    assert numbers.tolist() == [2, 1, 3, 0, 4]


def rule_slowly(sequences, numbers, last):
    found = []
    for items in sequences:
        *past, target = [numbers[j] for j in items]
        start = past[-1] if last else max(past)
        found.append(target - start if target > start else np.inf)
    return found


@pytest.mark.parametrize("last", [False, True])
def test_the_rule_is_what_it_says(last):
    rng = np.random.default_rng(1)
    sequences = [rng.permutation(50)[: rng.integers(2, 9)].tolist() for _ in range(200)]
    numbers = rng.permutation(50)
    found = leak.rule_ranks(sequences, numbers, last=last)
    assert found.tolist() == rule_slowly(sequences, numbers, last)
    with pytest.raises(ValueError, match="user 1 has 1"):
        leak.rule_ranks([(1, 2), (3,)], numbers)


RULES = list(product((1, -1), (False, True)))  # which way an id is read, and where the rule starts


def rule_on(data):
    """Whole sequences, and a function of numbers and where the rule starts: HR@10 on test items."""
    triples = zip(data.train.users, data.valid, data.test, strict=True)
    whole = [(*items, v, t) for items, v, t in triples]
    return whole, lambda numbers, last: next_item.gains(leak.rule_ranks(whole, numbers, last=last))[
        "HR@10"
    ].mean()


def rule_is_at_chance(data):
    """Chance is a random order of the items; the leaky numbering shows that the test can fail."""
    n, (whole, hit) = len(data.train), rule_on(data)
    leaky = item_ids.appearance_numbers(whole, n)
    for way, last in RULES:
        rngs = [np.random.default_rng(seed) for seed in range(32)]
        chance = [hit(rng.permutation(n), last) for rng in rngs]
        ids = [item_ids.random_ids(n, np.random.default_rng(seed)) for seed in range(32)]
        used = [hit(item_ids.numbers_of(codes[:, ::way]), last) for codes in ids]
        off = np.hypot(np.std(chance), np.std(used)) / len(used) ** 0.5
        assert used[0] <= max(chance)  # the ids of the chapter and of `experiments.pod`
        assert np.mean(used) - np.mean(chance) < 3 * off
        assert hit(leaky, last) > max(chance)


def test_the_rule_is_at_chance_on_the_ids_in_use():
    rule_is_at_chance(minireel_data()[0])


def test_the_rule_is_at_chance_on_ids_of_movielens(shared_data):
    films = read_movielens(shared_data / "interactions" / "ml-100k").at_least(3)
    rule_is_at_chance(leave_one_out(films))


def test_within_a_cluster_the_rule_finds_what_goes_together():
    data = minireel_data()[0]
    n, (_, hit) = len(data.train), rule_on(data)
    rngs = [np.random.default_rng(seed) for seed in range(8)]
    ids = [item_ids.cluster_ids(data.train.users, n, rng) for rng in rngs]
    within, across = (
        np.mean([hit(item_ids.numbers_of(codes[:, ::way]), True) for codes in ids])
        for way in (1, -1)
    )
    chance = 10 / n
    assert across < 1.2 * chance and within > 2 * chance


def test_a_number_has_the_symbols_of_an_id_as_digits():
    codes = np.array([[0, 0], [2, 0], [1, 3], [2, 1]])
    assert item_ids.numbers_of(codes).tolist() == [0, 8, 7, 9]
    assert item_ids.numbers_of(codes[:, ::-1]).tolist() == [0, 2, 10, 5]
    assert item_ids.numbers_of(np.array([[3], [1]])).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("n", "length", "base"), [(1, 2, 1), (600, 2, 25), (626, 2, 26), (9, 3, 3)]
)
def test_random_ids_are_digits_of_a_random_order(n, length, base):
    codes = item_ids.random_ids(n, np.random.default_rng(0), length)
    assert codes.shape == (n, length) and codes.max() < base
    numbers = codes @ base ** np.arange(length)[::-1]
    assert (numbers == np.random.default_rng(0).permutation(n)).all()


@pytest.mark.parametrize("name", ["beauty", "toys", "sports"])
def test_the_rule_on_real_sequences(shared_data, name):
    amazon = read_amazon(shared_data / "interactions", name)
    leaky = item_ids.appearance_numbers(amazon.users, len(amazon))
    fair = np.random.default_rng(0).permutation(len(amazon))
    hit = {k: next_item.gains(leak.rule_ranks(amazon.users, ids))["HR@10"].mean()
           for k, ids in {"leaky": leaky, "fair": fair}.items()}  # fmt: skip
    assert hit["leaky"] > 0.04 and hit["fair"] < 0.002


# -- prompts and batches --------------------------------------------------------------------------


def test_tokens_of_one_id_share_a_number(vocabulary):
    sample = Sample(0, 7, (4, 5, 4), 6)
    token, word = fill(BARE, sample, vocabulary)
    assert word.tolist() == [1, 1, 2, 2, 3, 3, 4, 4]
    assert vocabulary.items(token[2:].reshape(3, 2)).tolist() == [4, 5, 4]
    for template in TEMPLATES["sequential"]:
        longer, word = fill(template, sample, vocabulary)
        assert longer[word > 0].tolist() == token.tolist()
        assert (longer[word == 0] >= vocabulary.first_word).all()


def test_what_is_no_id_is_no_item(vocabulary):
    tokens = vocabulary.item_tokens.copy()
    tokens[0, 1] = EOS
    assert vocabulary.items(tokens).tolist() == [-1, *range(1, N)]
    with pytest.raises(ValueError, match="same id"):
        Vocabulary(np.zeros((2, 2), int), U, ["a"], 20)


def test_words_are_read_back(vocabulary):
    text = "film 2 is fine"
    assert vocabulary.text([*vocabulary.words(text), EOS, *vocabulary.words("no")]) == text


def test_alternated_batches_have_one_task_and_less_padding(data, sentences, vocabulary):
    padding = {}
    for way in (alternated, mixed):
        rng, batches = np.random.default_rng(0), []
        for count in way(6, 30, (0, 1, 2)):
            assert sum(count.values()) == 30
            batches.append(training_batch(count, data.train, sentences, vocabulary, TINY, rng))
        assert all((len(set(b.task.tolist())) == 1) == (way is alternated) for b in batches)
        padding[way] = sum(b.padding for b in batches) / sum(len(b) for b in batches)
    assert padding[alternated] < padding[mixed]


def test_training_never_shows_what_is_held_out(data):
    rng = np.random.default_rng(0)
    for task in (0, 1):
        for s in samples.draw(task, 300, data.train, [], TINY, rng):
            assert s.answer in data.train.users[s.user]
            if task == 0:
                assert (*s.items, s.answer) in set(chains(data.train.users[s.user], TINY.history))
            else:
                assert s.answer in s.items and len(set(s.items)) == TINY.candidates
                others = set(s.items) - {s.answer}
                assert not others & set(data.train.users[s.user])


def chains(taken, longest):
    return [taken[max(0, end - longest) : end + 1] for end in range(1, len(taken))]


def test_sentences_do_not_tell_what_is_held_out():
    data, sentences = minireel_data()
    pairs = {(s.user, s.items[0]) for s in sentences.train}
    held = {(u, j) for kind in (data.valid, data.test) for u, j in enumerate(kind)}
    assert not pairs & held and len(sentences.test) > 300
    assert {(s.user, s.items[0]) for s in sentences.test} & held, "else nothing is guarded"


def test_sentences_give_a_reason():
    movie = Movie("1", "Alien", 1979, ("Tom Skerritt",), ("Ridley Scott",), ("Horror",), "A tug.")
    assert gives_a_reason("the one with tom skerritt", movie)
    assert gives_a_reason("great if you like horror", movie)
    assert not gives_a_reason("is a good one", movie) and not gives_a_reason("a tug", movie)
    catalogue, _ = load_minireel()
    _, sentences = minireel_data()
    assert all(gives_a_reason(s.answer, catalogue[s.items[0]]) for s in sentences.test)


# -- the model ------------------------------------------------------------------------------------


def test_padding_changes_no_loss(trained, data, vocabulary):
    asked = [Sample(0, 0, (1, 2), 3), Sample(0, 1, (4,), 5), Sample(2, 2, (6,), "film 0 is fine")]
    together = trained.token_nll(ask(asked, vocabulary))
    for row, sample in zip(together, asked, strict=True):
        alone = trained.token_nll(ask([sample], vocabulary))[0]
        torch.testing.assert_close(row[: len(alone)], alone, atol=1e-5, rtol=1e-5)
        assert not row[len(alone) :].any()


def test_the_loss_is_t5s(trained, vocabulary):
    batch = ask([Sample(0, 0, (1, 2), 3), Sample(2, 2, (6,), "film 0 is fine")], vocabulary)
    vector, there = trained.inputs(batch)
    theirs = trained.t5(inputs_embeds=vector, attention_mask=there, labels=batch.label).loss
    torch.testing.assert_close(trained(batch), theirs)
    assert (batch.label == IGNORED).any()


def test_it_learns_and_the_task_prompt_matters(trained, data, vocabulary):
    seen = samples.draw(0, 64, data.train, [], TINY, np.random.default_rng(1))
    batch = ask(seen, vocabulary)
    nll = trained(batch).item()
    assert nll < 0.7 * np.log(N) / 3  # per token: two of the id, and EOS
    silenced, swapped = (POD(TINY, len(vocabulary)).eval() for _ in range(2))
    for other, prompt in ((silenced, trained.prompt * 0), (swapped, trained.prompt.roll(1, 0))):
        other.load_state_dict(trained.state_dict())
        other.prompt.data = prompt.data
        assert other(batch).item() > nll + 0.05


def test_whole_words_are_added(vocabulary):
    batch = ask([Sample(0, 0, (1, 2), 3)], vocabulary)
    with_words = POD(TINY, len(vocabulary))
    without = POD(replace(TINY, whole_words=False), len(vocabulary))
    difference = (with_words.inputs(batch)[0] - without.inputs(batch)[0])[0, TINY.prompts :]
    torch.testing.assert_close(difference, with_words.word(batch.word[0]))
    assert difference.any(-1).all()  # every token of a bare prompt belongs to an id


def test_a_full_beam_ranks_as_the_likelihoods_do(trained, data, vocabulary):
    held = samples.held_out(0, data, TINY, test=True)[:3]
    lists = ranked_items(
        trained, ask(held, vocabulary), vocabulary, N, Trie(vocabulary.item_tokens)
    )
    for sample, found in zip(held, lists, strict=True):
        every = [replace_answer(sample, j) for j in range(N)]
        with torch.no_grad():
            nll = trained.token_nll(ask(every, vocabulary)).sum(1)
        assert sorted(found) == list(range(N))
        assert all(nll[a] <= nll[b] + 1e-4 for a, b in pairwise(found))


def test_unseen_items_are_searched_as_the_whole_is(trained, data, vocabulary):
    """A full beam over what a user has not seen is the full list without what they have."""
    held = samples.held_out(0, data, TINY, test=True)[:5]
    seen = samples.seen_items(data, test=True)[:5]
    unseen = samples.unseen_items(data, test=True)[:5]
    beams = min(map(len, unseen))
    found = ranked_lists(trained, held, vocabulary, among=unseen, beams=beams)
    whole = ranked_lists(trained, held, vocabulary, beams=N)
    assert (found == next_item.without(whole, seen)[:, :beams]).all()


def replace_answer(sample, item):
    return Sample(sample.task, sample.user, sample.items, item)


def test_search_is_held_to_a_trie(data, vocabulary):
    untrained = POD(TINY, len(vocabulary)).eval()
    asked = samples.held_out(1, data, TINY, test=True)[:6]
    batch = ask(asked, vocabulary)
    tries = [Trie(vocabulary.item_tokens[list(s.items)]) for s in asked]
    lists = ranked_items(untrained, batch, vocabulary, TINY.candidates, tries)
    assert [sorted(x) for x in lists.tolist()] == [sorted(s.items) for s in asked]
    among = [s.items for s in asked]
    same = ranked_lists(untrained, asked, vocabulary, among=among, beams=TINY.candidates)
    assert (same == lists).all()
    free = ranked_items(untrained, batch, vocabulary, TINY.candidates)
    assert (free == -1).any(), "an untrained model spells what is no id"


def test_it_speaks_the_sentence_of_the_item(trained, sentences, vocabulary):
    written = answers(trained, ask(sentences[:9], vocabulary), longest=20)[:, 0]
    right = [
        vocabulary.text(w.tolist()) == s.answer for w, s in zip(written, sentences, strict=False)
    ]
    assert np.mean(right) > 0.6


def test_prompt_tuning_leaves_the_model_alone(data, vocabulary):
    config = replace(TINY, steps=20, prompts=0)
    model = POD(config, len(vocabulary)).eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    batch = ask(samples.held_out(0, data, TINY, test=False), vocabulary)
    found = tuned(model, 0, [batch] * 20, replace(config, prompts=2))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    same = {k for k, v in found.state_dict().items() if k != "prompt" and torch.equal(v, before[k])}
    assert same == set(before) - {"prompt"}
    assert found(batch) < model(batch)
    with pytest.raises(ValueError, match="2 prompt vectors"):
        tuned(POD(TINY, len(vocabulary)), 0, [batch], TINY)


def test_configuration_refuses_what_cannot_be():
    for wrong in ({"bare": 2.0}, {"prompts": -1}, {"width": 30, "heads": 4}):
        with pytest.raises(ValueError):
            PODConfig(**wrong)
    with pytest.raises(TypeError):
        PODConfig(nothing=1)


def test_collate_pads_behind_the_end(vocabulary):
    asked = [Sample(0, 0, (1, 2), 3), Sample(0, 1, (4,), 5)]
    batch = collate(asked, [fill(BARE, s, vocabulary) for s in asked], vocabulary)
    assert batch.length.tolist() == [6, 4] and batch.padding == 2
    assert not batch.token[1, 4:].any() and not batch.word[1, 4:].any()


# -- POD meets PECRS ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pecrs(tiny_backbone, catalogue):
    config = Config(
        backbone=tiny_backbone, window=512, context_tokens=64, utterance_tokens=48, lora_rank=2
    )
    return PECRS.from_backbone(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def contexts(pecrs, dialogues, catalogue):
    return encode_windows(dialogues, catalogue, pecrs)


@pytest.fixture(scope="module")
def v(pecrs, catalogue):
    return pecrs.encode_catalogue(pecrs.item_features(catalogue))


def test_fields_are_spelled_out_and_items_stay(dialogues, catalogue):
    for dialogue in dialogues:
        longer = context_prompt.spelled_out(dialogue, catalogue)
        for old, new in zip(dialogue.utterances, longer.utterances, strict=True):
            assert old.items == new.items
            for mention in old.mentions:
                if mention.start is not None:
                    movie = catalogue[catalogue.row[mention.item]]
                    assert context_prompt.fields_of(movie) in new.text


def test_no_vectors_in_front_change_nothing(pecrs, contexts, v):
    batch = next(context_prompt.batches(contexts, 4))
    x, hidden = pecrs.read(batch, v, torch.arange(len(v)))
    with_none = context_prompt.read(pecrs, batch, v, x.new_zeros(0, x.shape[-1]))
    real = batch.layout.branch >= 0
    torch.testing.assert_close(with_none[1][real], hidden[real], atol=1e-5, rtol=1e-5)
    changed = context_prompt.read(pecrs, batch, v, x.new_ones(2, x.shape[-1]))[1]
    assert not torch.allclose(changed[real], hidden[real], atol=1e-3)


def test_distilling_trains_the_vectors_alone(pecrs, contexts, v):
    before = {name: p.clone() for name, p in pecrs.state_dict().items()}
    how = {"seed": 0, "size": 4, "learning_rate": 0.1}
    start = context_prompt.distil(pecrs, contexts, contexts, v, 2, epochs=0, **how)
    found = context_prompt.distil(pecrs, contexts, contexts, v, 2, epochs=6, **how)
    assert all(torch.equal(p, before[name]) for name, p in pecrs.state_dict().items())

    def loss(prefix):
        parts = context_prompt.batches(contexts, 4)
        return sum(context_prompt.retrieval_nll(pecrs, b, v, prefix).item() for b in parts)

    assert found.shape == (2, pecrs.backbone.dim) and loss(found) < loss(start)


def test_ranks_are_those_of_the_distances(pecrs, contexts, v):
    nothing = v.new_zeros(0, pecrs.backbone.dim)
    rank, dialogue = context_prompt.ranks(pecrs, contexts, v, nothing, size=3)
    theirs = rank_windows(pecrs, contexts, v, candidates=1)
    order = np.lexsort((rank, dialogue))
    other = np.lexsort((theirs.retrieval_rank, theirs.dialogue))
    assert dialogue[order].tolist() == theirs.dialogue[other].tolist()
    assert rank[order].tolist() == theirs.retrieval_rank[other].tolist()


# -- the result file ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record():
    return tables.read_record()


def test_the_ranking_comes_out_of_the_saved_predictions(record):
    data, _ = minireel_data()
    run = next(run for run in record["runs"] if "lists" in run)
    seen = samples.seen_items(data, test=True)
    for how, lists in run["lists"].items():
        rank = next_item.ranks_in(np.array(lists), np.array(data.test))
        assert (rank == tables.ranks_of(run["ids only"][how]["rank"])).all()
        assert run["ids only"][how]["different"] == len(np.unique(lists))
        if how == "removed":
            assert not any(set(a) & set(b) for a, b in zip(lists, seen, strict=True))


def test_vectors_keep_the_quality_with_fewer_tokens(record):
    """The same checkpoints, three seeds: template minus ids only, NDCG@10, with and without."""
    table = tables.variants_table(record)
    assert (table["seeds"] == 3).all() and len(table) == 13
    assert (table["fewer tokens (%)"] > 30).all()
    for runs in (record["runs"], record["movielens"]["runs"]):
        for name, of in tables.by_variant(runs).items():
            bare, full = (
                next_item.gains(tables.ranks_of(tables.places([run[form] for run in of])))
                for form in ("ids only", "template")
            )
            lost = next_item.with_interval(
                (full["NDCG@10"] - bare["NDCG@10"]).mean(0), bounds=(-1, 1)
            )
            if of[0]["config"]["prompts"] > 1:
                assert lost["low"] < 0.001, name
            elif (name, runs) == ("K = 0", record["movielens"]["runs"]):
                assert lost["low"] > 0  # nothing says which task it is


def test_tables_and_figures_are_drawn_from_the_file(record):
    for data in tables.DATA:
        table = tables.grid(record, data)
        assert table.K.tolist() == [0, 0, 1, 1, 3, 3, 10, 10]
        assert (table.groupby("K").tokens.agg(lambda t: t.max() > t.min())).all()
    assert pictures.grid_figure(table, 3, "ids only").axes
    assert tables.leak_table(record).shape == (9, 6)
    heights = [bar.get_height() for bar in pictures.leak_figure(record).axes[0].patches]
    rule = [of["rules"]["largest + 1, leaky ids"]["NDCG@10"]["value"]
            for of in record["leak"].values()]  # fmt: skip
    assert heights[:3] == rule
    panel = pictures.grid_widget(record)
    panel.controls["form"].value = "ids only"
    assert "ids only" in panel.below.value and not panel.message.value
    assert "ms a step" in panel.below.value
    panel.controls["data"].value = "MovieLens-100K"
    assert "ms a step" not in panel.below.value and not panel.message.value
    for table in (tables.minireel_table(record), tables.movielens_table(record)):
        assert table["seeds"].loc["POD, K = 3, ids only"].tolist() == [3, 3]
    assert context_tables.context_difference(record).shape == (4, 3)
    assert len(tables.lengths_table(record)) == 12 and len(tables.padding_table(record)) == 3
    assert (tables.losses_table(record)["own"] > 0).all()


@pytest.mark.parametrize("name", ["beauty", "toys", "sports"])
def test_the_leak_is_as_measured(record, shared_data, name):
    amazon = read_amazon(shared_data / "interactions", name)
    leaky = item_ids.appearance_numbers(amazon.users, len(amazon))
    found = next_item.gains(leak.rule_ranks(amazon.users, leaky))["NDCG@10"].mean()
    told = record["leak"][name]["rules"]["largest + 1, leaky ids"]["NDCG@10"]
    assert found == pytest.approx(told["value"]) and told["n"] == len(amazon.users)
    printed = tables.published().query("task == 'sequential' and metric == 'NDCG@10'")
    assert told["high"] > 0.8 * printed.set_index("dataset")["value"][name]


def test_the_rules_are_scored_live_as_in_the_file(record, shared_data):
    live = leak.scores(read_amazon(shared_data / "interactions", "toys"))
    told = record["leak"]["toys"]["rules"]
    assert len(live) == 5
    for way, metrics in live.items():
        for metric, cell in metrics.items():
            assert cell == pytest.approx(told[way][metric])
