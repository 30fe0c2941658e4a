"""ILM against slow, obvious versions: CF, losses, masks, slots, ranking; and what must not move."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pecrs_lib.data import bundled
from pecrs_lib.data.interactions import Interactions, leave_one_out
from pecrs_lib.figures import ilm_figures
from pecrs_lib.ilm.alignment import (
    Texts,
    align,
    held_out,
    new_qformer,
    next_pairs,
    retrieval_ranks,
    written_nll,
)
from pecrs_lib.ilm.bridge import ItemsWithTokens
from pecrs_lib.ilm.cf import cf_vectors, shuffled, user_vectors
from pecrs_lib.ilm.config import ILMConfig
from pecrs_lib.ilm.evaluation import answers, log_perplexity, semantic_consistency
from pecrs_lib.ilm.language import ILM, fingerprint, load_backbone, teach
from pecrs_lib.ilm.losses import (
    contrastive_loss,
    draw_mismatches,
    item_item_scores,
    item_text_scores,
    matching_loss,
    text_nll,
)
from pecrs_lib.ilm.qformer import MLP, QFormer, matching_mask, writing_mask
from pecrs_lib.ilm.tasks import KINDS, Material, Task, early, encode_tasks, names_of, next_prompt
from pecrs_lib.ilm.titles import Titles, likeliest, recommend_next
from pecrs_lib.items import ItemEncoder, ItemFeatures
from pecrs_lib.next_item import popularity

CONFIG = ILMConfig(
    cf_dim=6, queries=3, width=16, heads=2, text_tokens=8, align_steps=4, align_batch=8,
    grounded=4, prompt=2, steps=2, batch=3,
)  # fmt: skip
N = 30


def two_tastes(users: int = 60, seed: int = 0) -> Interactions:
    """Users take items of one half only; the texts say which half: red or blue."""
    g = np.random.default_rng(seed)
    taken = [g.permutation(N // 2)[:6] + (u % 2) * (N // 2) for u in range(users)]
    colour = ["red warm fire"] * (N // 2) + ["blue cold water"] * (N // 2)
    titles = tuple(f"Film {j} ({1990 + j})" for j in range(N))
    texts = tuple(f"{c} {j}" for j, c in enumerate(colour))
    rows = tuple(tuple(int(j) for j in row) for row in taken)
    return Interactions(tuple(map(str, range(N))), titles, texts, rows)


@pytest.fixture(scope="module")
def backbone(tiny_backbone):
    return load_backbone(tiny_backbone)


@pytest.fixture(scope="module")
def model(backbone):
    lm, tokenizer = backbone
    texts = Texts.of(two_tastes().texts, tokenizer, CONFIG.text_tokens)
    former = new_qformer(CONFIG, texts)
    return ILM(CONFIG, former, lm, tokenizer).eval()


@pytest.fixture(scope="module")
def material():
    whole = two_tastes()
    facets = tuple((text.split()[0],) for text in whole.texts)
    return Material(whole, names_of(whole.titles), facets, tuple(range(N)), 3)


@pytest.fixture(scope="module")
def table(material):
    cf = cf_vectors(material.train, CONFIG.cf_dim)
    return torch.cat([cf, user_vectors(cf, [early(u) for u in material.train.users])])


# -- CF -----------------------------------------------------------------------------------------


def test_cf_vectors_are_a_truncated_svd():
    data = two_tastes()
    cf = cf_vectors(data, 6)
    dense = np.zeros((len(data.users), N))
    for u, taken in enumerate(data.users):
        dense[u, list(taken)] = 1
    dense /= np.sqrt(dense.sum(1, keepdims=True)) * np.sqrt(dense.sum(0, keepdims=True))
    _, size, v = np.linalg.svd(dense, full_matrices=False)
    slow = v[:6].T * size[:6]
    slow /= np.linalg.norm(slow, axis=1, keepdims=True)
    np.testing.assert_allclose((cf @ cf.T / 6).numpy(), slow @ slow.T, atol=1e-5)
    assert torch.equal(cf, cf_vectors(data, 6)), "equal interactions, equal vectors"
    assert cf.norm(dim=1).numpy() == pytest.approx(6**0.5, rel=1e-5)


def test_only_training_interactions_enter():
    """What users take last is nowhere in the vectors, and an item nobody took has none."""
    split = leave_one_out(two_tastes())
    other = split.train.of((*taken, 29) for taken in split.train.users if 29 not in taken)
    assert not torch.equal(cf_vectors(other, 4), cf_vectors(split.train, 4))
    again = leave_one_out(two_tastes()).train
    assert torch.equal(cf_vectors(again, 4), cf_vectors(split.train, 4))
    lonely = split.train.of([j for j in taken if j] for taken in split.train.users)
    assert popularity(lonely.users, len(lonely))[0] == 0 and not cf_vectors(lonely, 4)[0].any()


def test_shuffled_leaves_nobody_their_own():
    cf = cf_vectors(two_tastes(), 6)
    other = shuffled(cf, torch.Generator().manual_seed(0))
    assert (other != cf).any(1).all()
    assert torch.equal(other.sort(0).values, cf.sort(0).values)


@pytest.mark.parametrize("dim", [0, N, 200])
def test_too_many_dimensions(dim):
    with pytest.raises(ValueError, match=f"dim={dim}"):
        cf_vectors(two_tastes(), dim)


# -- losses -------------------------------------------------------------------------------------


def unit(*shape, seed=0):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=-1, keepdim=True)


def test_scores_and_contrast_against_loops():
    z, y, t = unit(4, 3, 5), unit(4, 3, 5, seed=1), unit(4, 5, seed=2)
    for i in range(4):
        for j in range(4):
            by_text = max(float(z[i, k] @ t[j]) for k in range(3))
            by_item = max(float(z[i, k] @ y[j, n]) for k in range(3) for n in range(3))
            assert item_text_scores(z, t)[i, j] == pytest.approx(by_text, abs=1e-6)
            assert item_item_scores(z, y)[i, j] == pytest.approx(by_item, abs=1e-6)
    s, rows, columns = item_item_scores(z, y), [0, 1, 2, 0], [4, 5, 4, 6]
    total = 0.0
    for i in range(4):
        kept = [j for j in range(4) if j == i or (rows[i] != rows[j] and columns[i] != columns[j])]
        logits = torch.stack([s[i, j] for j in kept]) / 0.1
        back = torch.stack([s[j, i] for j in kept]) / 0.1
        total -= float(logits.log_softmax(0)[kept.index(i)] + back.log_softmax(0)[kept.index(i)])
    found = contrastive_loss(s, 0.1, torch.tensor(rows), torch.tensor(columns))
    assert float(found) == pytest.approx(total / 8, abs=1e-5)


def test_mismatches_are_never_the_own_and_hard_ones_are_near():
    s = torch.eye(6) + torch.eye(6).roll(1, 1) * 0.9  # the next column is nearly right
    g = torch.Generator().manual_seed(0)
    draws = {h: torch.stack([draw_mismatches(s, 0.1, h, g) for _ in range(200)]) for h in (0, 1)}
    near = (torch.arange(6) + 1) % 6
    for drawn in draws.values():
        assert (drawn != torch.arange(6)).all()
    assert (draws[1] == near).float().mean() > 0.95
    assert 0.1 < (draws[0] == near).float().mean() < 0.3


def test_matching_and_text_losses_by_hand():
    true, wrong = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]])
    by_hand = np.mean([np.log1p(np.exp(-2)), np.log1p(np.exp(2)), np.log1p(np.exp(-1))])
    assert float(matching_loss(true, wrong)) == pytest.approx(by_hand, abs=1e-6)
    logits, ids = torch.randn(2, 3, 7), torch.tensor([[1, 2, 3], [4, 5, 0]])
    text = torch.tensor([[True, True, True], [True, True, False]])
    slow = [
        np.mean([-float(logits[b, i].log_softmax(0)[ids[b, i]]) for i in range(3) if text[b, i]])
        for b in range(2)
    ]
    assert text_nll(logits, ids, text).numpy() == pytest.approx(slow, abs=1e-5)


# -- the Q-Former -------------------------------------------------------------------------------


def test_masks_against_a_rule():
    text = torch.tensor([[True, True, False]])
    both, write = matching_mask(2, text)[0, 0], writing_mask(2, text)[0, 0]
    for q in range(5):
        for k in range(5):
            word = k < 4  # the last one is padding
            assert bool(both[q, k]) == word
            assert bool(write[q, k]) == (word and (k < 2 if q < 2 else k <= q))


def random_texts(rows=3, L=6):
    ids = torch.randint(0, 5, (rows, L), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(L) < torch.tensor([[L], [4], [2]])


def test_one_key_is_a_linear_map(model):
    """With one vector to look at, cross-attention has nothing to choose."""
    attention = model.encoder.former.encoder.layer[0].crossattention.attention
    cf, hidden = torch.randn(2, 6), torch.randn(2, 3, 16)
    out, _ = attention(hidden, encoder_hidden_states=cf[:, None])
    torch.testing.assert_close(out, attention.value(cf)[:, None].expand(-1, 3, -1))


def test_a_word_sees_neither_later_words_nor_padding(model):
    former, cf = model.encoder, torch.randn(3, 6)
    ids, text = random_texts()
    plain = former.writing_logits(cf, ids, text)
    later = ids.clone()
    later[:, 3:] = 5
    assert torch.equal(former.writing_logits(cf, later, text)[:, :4], plain[:, :4])
    assert not torch.allclose(former.writing_logits(cf, later, text)[0, 4], plain[0, 4])
    filled = torch.where(text, ids, 5)
    torch.testing.assert_close(former.text_vectors(filled, text), former.text_vectors(ids, text))
    torch.testing.assert_close(
        former.match_logits(cf, filled, text), former.match_logits(cf, ids, text)
    )
    assert not torch.allclose(former.writing_logits(cf.flip(0), ids, text), plain)


def test_queries_alone_do_not_depend_on_the_text(model):
    cf = torch.randn(3, 6)
    ids, text = random_texts()
    x = model.encoder.words(ids, query_embeds=model.encoder.queries.expand(3, -1, -1))
    mask = writing_mask(3, text)
    joint = model.encoder.former(x, 3, mask, encoder_hidden_states=cf[:, None]).last_hidden_state
    torch.testing.assert_close(joint[:, :3], model.encoder.encode(cf), atol=1e-5, rtol=1e-4)


# -- stage 1 ------------------------------------------------------------------------------------


def test_stage_one_finds_what_interactions_say_of_texts(backbone):
    """Held-out items find a text of their half, and with another's vector they do not."""
    _, tokenizer = backbone
    data = two_tastes(200)
    config = replace(CONFIG, align_steps=80, align_batch=16, align_rate=2e-3, word_dropout=0.0)
    cf, texts = cf_vectors(data, 6), Texts.of(data.texts, tokenizer, 8)
    seen, unseen = held_out(data, 0.3, 0)
    assert not set(seen.tolist()) & set(unseen.tolist())
    former = new_qformer(config, texts)
    before = written_nll(former, cf, texts, unseen).mean()
    align(former, cf, texts, data, seen, config)
    with torch.no_grad():
        z = former.item_vectors(former.encode(cf[unseen]))
        s = item_text_scores(z, former.text_vectors(*texts.of_rows(unseen)))
    half = unseen < N // 2
    right = (half[s.argmax(1)] == half).float().mean()
    swapped = cf.roll(N // 2, 0)
    own = written_nll(former, cf, texts, unseen)
    other = written_nll(former, swapped, texts, unseen)
    assert right > 0.85
    assert own.mean() < before and (own < other).float().mean() > 0.85
    ranks = retrieval_ranks(former, cf, texts, unseen)
    assert all(len(r) == len(unseen) and r.min() >= 1 for r in ranks.values())


def test_pairs_are_consecutive_and_allowed():
    data = two_tastes(2).of([(0, 1, 2), (5, 2, 1)])
    assert next_pairs(data, torch.tensor([0, 1, 2])).tolist() == [[0, 1], [1, 2], [2, 1]]
    assert next_pairs(data, torch.tensor([0, 1])).tolist() == [[0, 1]]


def test_an_item_without_text():
    class Words:
        def __call__(self, text, **_):
            return type("Ids", (), {"input_ids": [1] * len(text)})

    with pytest.raises(ValueError, match="item 1 has no text"):
        Texts.of(["a", ""], Words(), 4)


# -- tasks and slots ----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_is_true(kind, material):
    for seed in range(20):
        task = KINDS[kind](material, np.random.default_rng(seed))
        rows = [part for part in task.prompt if isinstance(part, int)]
        assert task.kind == kind and rows and task.answer
        assert all(0 <= row < N + len(material.train.users) for row in rows)
        if kind == "describe":
            assert material.train.texts[rows[0]] in task.answer
        if kind == "would like":
            user = material.train.users[rows[0] - N]
            assert (rows[1] in user) == (task.answer == " Yes.")
        if kind in ("next item", "recommend"):
            name = task.answer.split('"')[0]
            assert material.names.index(name) not in rows


def test_names_keep_the_year_where_it_matters():
    assert names_of(["Up (2009)", "It (1990)", "It (2017)"]) == ("Up", "It (1990)", "It (2017)")


def test_slots_hold_the_vectors_and_nothing_else_moves(model, table):
    tasks = [Task("", ("User: ", 3, " or ", N + 1, "?"), " Yes."), Task("", ("Hi",), " No.")]
    batch = encode_tasks(tasks, model.tokenizer, 3)
    x = model.inputs(batch, table)[:, len(model.prompt) :]
    words = model.lm.get_input_embeddings()(batch.token)
    filled = batch.slot >= 0
    assert int(filled.sum()) == 6 and batch.slot[0][filled[0]].tolist() == [3] * 3 + [N + 1] * 3
    assert torch.equal(x[~filled], words[~filled])
    slots = model.slots(table[torch.tensor([3, N + 1])])
    torch.testing.assert_close(x[0][filled[0]], slots.flatten(0, 1))
    said = [model.tokenizer.decode(batch.token[b][batch.answer[b]]) for b in range(2)]
    assert said == [" Yes.", " No."]
    with pytest.raises(ValueError, match="no tasks"):
        encode_tasks([], model.tokenizer, 3)


def test_padding_changes_no_loss(model, table):
    tasks = [Task("", ("User: ", 3, " and so on?"), " Yes."), Task("", (5,), " No way at all.")]
    with torch.no_grad():
        nll, task = model.answer_nll(model.encoded(tasks), table)
    for n, one in enumerate(tasks):
        alone, _ = model.answer_nll(model.encoded([one]), table)
        torch.testing.assert_close(nll[task == n], alone, atol=1e-5, rtol=1e-5)
    per = log_perplexity(model, tasks, table)
    assert per[0] == pytest.approx(float(nll[task == 0].mean()), abs=1e-5)


def test_in_words_there_are_no_slots(model, material, table):
    task = KINDS["next item"](material, np.random.default_rng(0))
    batch = model.encoded([task], material.spoken())
    assert (batch.slot < 0).all()
    assert "Film" in model.tokenizer.decode(batch.token[0])


# -- stage 2 ------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["Q-Former", "MLP", "words"])
def test_the_language_model_stays_bit_for_bit(which, backbone, material, table):
    lm, tokenizer = backbone
    texts = Texts.of(material.train.texts, tokenizer, 8)
    encoder = MLP(CONFIG) if which == "MLP" else new_qformer(CONFIG, texts)
    model, before = ILM(CONFIG, encoder, lm, tokenizer), fingerprint(lm)
    adaptor, prompt = model.adaptor.weight.clone(), model.prompt.clone()
    history = teach(model, material, table, material.spoken() if which == "words" else None)
    assert len(history) == CONFIG.steps and fingerprint(lm) == before
    assert not any(p.requires_grad for p in lm.parameters())
    assert torch.equal(adaptor, model.adaptor.weight) == (which == "words")
    assert not torch.equal(prompt, model.prompt)


def test_equal_seeds_train_alike(backbone, material, table):
    def trained():
        texts = Texts.of(material.train.texts, backbone[1], 8)
        former = new_qformer(CONFIG, texts)
        align(former, table[:N], texts, material.train, torch.arange(N), CONFIG)
        model = ILM(CONFIG, former, *backbone)
        return teach(model, material, table)

    assert trained() == trained()


def test_saved_and_loaded(model, table, tmp_path, tiny_backbone):
    model.config = replace(CONFIG, backbone=tiny_backbone)
    model.save(tmp_path)
    again = ILM.load(tmp_path)
    assert isinstance(again.encoder, QFormer)
    torch.testing.assert_close(again.slots(table), model.slots(table), atol=1e-2, rtol=1e-2)
    (tmp_path / "ilm.json").write_text('{"layer": 2}', encoding="utf-8")
    with pytest.raises(TypeError, match="layer"):
        ILM.load(tmp_path)
    model.config = CONFIG


# -- ranking by titles --------------------------------------------------------------------------


def test_pruned_ranking_is_that_of_scoring_all(model, material, table):
    titles = Titles(material.names, model.tokenizer)
    task = Task("", next_prompt((2, 4)), "")
    inputs = model.inputs(model.encoded([task]), table)[0].detach()
    allowed = torch.ones(N, dtype=torch.bool)
    allowed[[2, 4]] = False
    slow = []
    for j in range(N):
        ids = titles.token[j][titles.mask[j]]
        x = torch.cat([inputs, model.lm.get_input_embeddings()(ids)])[None]
        logs = model.lm(inputs_embeds=x).logits[0].log_softmax(-1)
        at = torch.arange(len(ids)) + len(inputs) - 1
        slow.append(float(logs[at, ids].sum()) if allowed[j] else -np.inf)
    best = np.argsort(-np.array(slow))[:5]
    for chunk in (2, 7, N):
        rows, logs = likeliest(model, inputs, titles, allowed, 5, chunk)
        np.testing.assert_allclose(logs.numpy(), np.array(slow)[best], atol=1e-4)
        np.testing.assert_allclose(np.array(slow)[rows], np.array(slow)[best], atol=1e-4)
    lists = recommend_next(model, table, titles, [(2, 4)], 5)
    np.testing.assert_allclose(np.array(slow)[lists[0]], np.array(slow)[best], atol=1e-4)


def test_answers_and_their_consistency(model, material, table):
    tasks = [KINDS[kind](material, np.random.default_rng(0)) for kind in KINDS]
    said = answers(model, tasks, table, new_tokens=3)
    alone = [answers(model, [task], table, new_tokens=3)[0] for task in tasks]
    assert said == alone, "left padding changes no answer"
    meant = ["red fire", "blue water", "red fire red"]
    assert semantic_consistency(model, meant, meant) == pytest.approx(1.0, abs=1e-5)
    mixed = semantic_consistency(model, ["blue water", "", "red fire"], meant)
    assert mixed[0] < 0.5 and mixed[1] == 0.0 and mixed[2] > 0.5


# -- PECRS --------------------------------------------------------------------------------------


def test_tokens_start_without_effect_and_learn():
    offset = torch.tensor([0, 2, 5])
    features = ItemFeatures(torch.randn(5, 8).half(), offset)
    plain = ItemEncoder(8, 0.5)
    items = ItemsWithTokens(plain, torch.randn(2, 3))
    plain.fit(features)
    items.fit(features)
    torch.testing.assert_close(items.catalogue(features), plain.catalogue(features))
    items.catalogue(features).square().sum().backward()
    assert items.h_item.tokens.weight.grad.abs().sum() > 0
    with pytest.raises(NotImplementedError, match="catalogue"):
        items(*features.gather(torch.tensor([0])))


def test_hidden_tokens_are_the_mean_of_all_in_training_alone():
    features = ItemFeatures(torch.randn(5, 8).half(), torch.tensor([0, 2, 5]))
    tokens = torch.randn(2, 3)
    items = ItemsWithTokens(ItemEncoder(8, 0.5), tokens, hidden=1.0)
    items.fit(features)
    torch.nn.init.normal_(items.h_item.tokens.weight)
    with torch.no_grad():
        shown = items.catalogue(features)
    hidden = items.catalogue(features)
    items.tokens[:] = tokens.mean(0)
    with torch.no_grad():
        torch.testing.assert_close(hidden, items.catalogue(features))
    assert not torch.allclose(shown, hidden)


# -- pictures -----------------------------------------------------------------------------------


def test_neighbours_leave_out_the_film_itself():
    similarity = torch.tensor([[1.0, 0.2, 0.9], [0.2, 1.0, 0.3], [0.9, 0.3, 1.0]])
    assert ilm_figures.nearest(similarity, 0, 2)[0] == [2, 1]
    spaces, names = {"one": similarity, "two": -similarity}, ["A", "B", "C"]
    table = ilm_figures.neighbours_table(0, spaces, names, 2)
    assert table.to_dict("list") == {"one": ["C", "B"], "two": ["B", "C"]}
    figure = ilm_figures.neighbours_figure(0, spaces, names, 2)
    drawn = [[bar.get_width() for bar in ax.patches] for ax in figure.axes]
    assert np.allclose(drawn, [[0.9, 0.2], [-0.2, -0.9]])


def test_the_result_file_backs_the_notebook():
    record = json.loads((bundled("results") / "ilm.json").read_text(encoding="utf-8"))
    assert {"config", "commit", "hardware", "torch", "seeds", "language model unchanged"} <= set(
        record
    )
    assert len(record["seeds"]) >= 3 and record["language model unchanged"] is True
    assert {"popularity", "CF nearest neighbour", "ILM", "text-only LM"} <= set(record["ranking"])
    for data in (record, record["movielens"]):
        found = data["alignment"]["ILM"]
        chance = found["chance R@10"]
        own, other = (found[f"item to text, {whose} CF"]["R@10"] for whose in ("own", "other"))
        assert own["low"] > 3 * chance and other["low"] < 1.2 * chance
        assert found["nll"]["own - other"]["high"] < 0, "the own vector makes the own text likelier"
        assert {"popularity", "CF nearest neighbour"} <= set(data["ranking"])
    rows = ilm_figures.found_texts(record["alignment"])
    own = record["alignment"]["ILM"]["item to text, own CF"]["R@10"]["value"]
    assert ilm_figures.table_of(rows, 1).loc["ILM", "R@10"].startswith(f"{own:.1f} [")


def test_the_meeting_with_pecrs_has_its_controls():
    record = json.loads((bundled("results") / "ilm_pecrs.json").read_text(encoding="utf-8"))
    assert len(record["seeds"]) >= 3
    for data in ("minireel", "redial"):
        rows = record[data]["rows"]
        assert next(iter(rows)) == "text alone" and "tokens of another film" in rows
        assert all({"warm", "cold"} <= set(of) for of in rows.values())
        assert list(ilm_figures.met_rows(record[data], ("cold",))) == [f"{k}, cold" for k in rows]
