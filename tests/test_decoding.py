"""Diverse beam search equals its slow form; every strategy of Table 8 runs, batched and seeded."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM

from pecrs_lib.data import Dialogue, Utterance
from pecrs_lib.decoding import GREEDY, STRATEGIES, diverse, diverse_beam_search
from pecrs_lib.generation import generate_replies, respond
from pecrs_lib.recommend import history_windows
from tests.test_one_pass import build

EOS, BANNED = 0, [5, 9]
HISTORIES = [
    Dialogue("a", (Utterance("seeker", "I like robots"),)),
    Dialogue("b", ()),
    Dialogue("c", (Utterance("recommender", "Hello!"), Utterance("seeker", "A comedy, please"))),
]


@pytest.fixture(scope="module")
def lm(tiny_backbone):
    torch.manual_seed(3)
    lm = AutoModelForCausalLM.from_pretrained(tiny_backbone).eval()
    for p in lm.parameters():  # likelier tokens and less likely ones, not 1/V each
        p.data.mul_(3.0)
    return lm


@pytest.fixture(scope="module")
def trained(tiny_backbone, catalogue):
    model, features = build(tiny_backbone, catalogue)
    return model, model.encode_catalogue(features)


def prompt(lm, batch=3, longest=6):
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(10, 60, (batch, longest), generator=generator)
    embeds = lm.get_input_embeddings()(ids).detach()
    real = torch.arange(longest) >= torch.arange(batch)[:, None]  # padded on the left
    return embeds * real[..., None], real.long(), ids


def search(lm, embeds, mask, groups, penalty, tokens=8):
    return diverse_beam_search(
        lm, embeds, mask, num_beams=groups, num_beam_groups=groups, diversity_penalty=penalty,
        max_new_tokens=tokens, min_new_tokens=2, eos_token_id=EOS, suppress_tokens=BANNED,
    )  # fmt: skip


@torch.inference_mode()
def slow(lm, ids, groups, penalty, tokens=8):
    """One prompt, no cache: whole sequences through the model, groups and tokens one by one."""
    beams = [([], 0.0) for _ in range(groups)]
    for t in range(tokens):
        taken: dict[int, int] = {}
        for g, (said, score) in enumerate(beams):
            if EOS in said:
                continue
            logits = lm(torch.tensor([ids + said])).logits[0, -1].clone()
            logits[BANNED] = -torch.inf
            if t < 2:
                logits[EOS] = -torch.inf
            log_p = logits.log_softmax(0)
            worth = [x - penalty * taken.get(k, 0) for k, x in enumerate(log_p.tolist())]
            best = max(range(len(worth)), key=worth.__getitem__)
            taken[best] = taken.get(best, 0) + 1
            beams[g] = ([*said, best], score + log_p[best].item())
    said, _ = max(beams, key=lambda beam: beam[1] / len(beam[0]))
    return said


def up_to_eos(row):
    row = row.tolist()
    return row[: row.index(EOS) + 1] if EOS in row else row


@pytest.mark.parametrize(("groups", "penalty"), [(1, 0.0), (3, 0.0), (4, 0.5), (4, 5.0)])
def test_diverse_beam_search_equals_the_slow_way(lm, groups, penalty):
    embeds, mask, ids = prompt(lm)
    found = search(lm, embeds, mask, groups, penalty)
    for row, real, got in zip(ids, mask, found, strict=True):
        assert up_to_eos(got) == slow(lm, row[real.bool()].tolist(), groups, penalty)


def test_one_group_is_greedy(trained, catalogue):
    model, v = trained
    trunks = history_windows(model, HISTORIES, catalogue)
    greedy = generate_replies(model, trunks, [3, None, 7], v, response_tokens=8, **GREEDY)
    alone = diverse(1.0, beams=1)
    assert generate_replies(model, trunks, [3, None, 7], v, response_tokens=8, **alone) == greedy


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategies_repeat_with_the_seed_and_batch_changes_no_search(trained, catalogue, name):
    model, v = trained
    asked = {"always_recommend": True, "top": 2, **STRATEGIES[name]}
    first = respond(model, HISTORIES, catalogue, v, seed=1, **asked)
    assert [r.raw for r in respond(model, HISTORIES, catalogue, v, seed=1, **asked)] == [
        r.raw for r in first
    ]
    other = [r.raw for r in respond(model, HISTORIES, catalogue, v, seed=2, **asked)]
    if STRATEGIES[name].get("do_sample"):
        assert other != [r.raw for r in first]
        return
    alone = [respond(model, [h], catalogue, v, seed=1, **asked)[0].raw for h in HISTORIES]
    assert alone == [r.raw for r in first] == other


def test_a_large_penalty_sets_the_beams_apart(lm):
    embeds, mask, _ = prompt(lm, batch=1)
    logits = lm(inputs_embeds=embeds, attention_mask=mask).logits[0, -1]
    first = {int(search(lm, embeds, mask, g, 100.0, tokens=1)[0, 0]) for g in (1, 2, 3, 4)}
    assert first == {int(logits.index_fill(0, torch.tensor([EOS, *BANNED]), -torch.inf).argmax())}


def test_wrong_settings_are_refused(lm):
    embeds, mask, _ = prompt(lm)
    with pytest.raises(ValueError, match="-1"):
        search(lm, embeds, mask, 4, -1.0)
    with pytest.raises(ValueError, match="4 beams, 2 groups"):
        diverse_beam_search(
            lm, embeds, mask, num_beams=4, num_beam_groups=2, diversity_penalty=1.0,
            max_new_tokens=2, min_new_tokens=1, eos_token_id=EOS, suppress_tokens=[],
        )  # fmt: skip
