"""Decoding strategies by name, and diverse beam search (Table 8 of the paper).

Before `generation`, which hands the arguments to `transformers`' `generate`. The paper decodes
everything but greedy with a beam width of 4: its samples are drawn within beams.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BEAMS = 4
GREEDY: dict[str, Any] = {"do_sample": False}
TOP_K: dict[str, Any] = {"do_sample": True, "top_k": 50}  # the paper's choice (section 4.1)


def top_k(k: int, **more: Any) -> dict[str, Any]:
    """Sample from the k likeliest tokens (Fan et al., 2018)."""
    return {"do_sample": True, "top_k": k, **more}


def nucleus(p: float, **more: Any) -> dict[str, Any]:
    """Sample from the fewest tokens that together have probability p (Holtzman et al., 2020)."""
    return {"do_sample": True, "top_k": 0, "top_p": p, **more}


def diverse(penalty: float, beams: int = BEAMS) -> dict[str, Any]:
    """Diverse beam search (Vijayakumar et al., 2018), one beam per group."""
    return {"num_beams": beams, "num_beam_groups": beams, "diversity_penalty": penalty}


STRATEGIES: dict[str, dict[str, Any]] = {  # the rows of Table 8
    "greedy": GREEDY,
    "beam search": {"do_sample": False, "num_beams": BEAMS},
    **{f"diverse beam search, {x:.1f}": diverse(x) for x in (0.5, 1.0, 1.5)},
    **{f"top-k, k = {k}": top_k(k, num_beams=BEAMS) for k in (25, 50, 75)},
    **{f"nucleus, p = {p:.2f}": nucleus(p, num_beams=BEAMS) for p in (0.90, 0.95, 0.99)},
}


@torch.inference_mode()
def diverse_beam_search(
    lm: Any,
    embeds: Tensor,
    mask: Tensor,
    *,
    num_beams: int,
    num_beam_groups: int,
    diversity_penalty: float,
    max_new_tokens: int,
    min_new_tokens: int,
    eos_token_id: int,
    suppress_tokens: Sequence[int],
) -> Tensor:
    """(B, T) token ids of the best of several diverse greedy beams, padded with eos.

    At every step the groups choose one after the other; a token that earlier groups chose at this
    step loses `diversity_penalty` from its log probability for each of them (Hamming diversity).
    The best is the one of the highest mean log probability, the penalty left out.

    `generate` of recent `transformers` loads this search from the hub, so the loop is here; the
    arguments are named as there.

    Args:
        lm: a causal LM of `transformers`.
        embeds: (B, S, D), padded on the left; mask: (B, S), 1 for real positions.

    Raises:
        ValueError: more beams than groups, or a penalty below 0.
    """
    if num_beams != num_beam_groups or num_beams < 1:
        raise ValueError(f"one beam per group, please: {num_beams} beams, {num_beam_groups} groups")
    if diversity_penalty < 0:
        raise ValueError(f"diversity_penalty must not be negative, got {diversity_penalty}")
    batch, groups = len(embeds), num_beam_groups
    seen = mask.repeat_interleave(groups, 0)
    position = (seen.cumsum(1) - 1).clamp_min(0)
    score = torch.zeros(batch, groups, device=embeds.device)
    length = torch.zeros_like(score)
    done = torch.zeros_like(score, dtype=torch.bool)
    chosen: list[Tensor] = []  # (B, G) each
    cache: Any = None
    step: dict[str, Tensor] = {"inputs_embeds": embeds.repeat_interleave(groups, 0)}
    for t in range(max_new_tokens):
        out = lm(
            **step, attention_mask=seen, position_ids=position, past_key_values=cache,
            use_cache=True, logits_to_keep=1,
        )  # fmt: skip
        cache = out.past_key_values
        logits = out.logits[:, -1].float()
        logits[:, list(suppress_tokens)] = -torch.inf
        if t < min_new_tokens:
            logits[:, eos_token_id] = -torch.inf
        log_p = logits.log_softmax(-1).view(batch, groups, -1)
        taken = torch.zeros_like(log_p[:, 0])  # (B, V) by how many earlier groups
        tokens = []
        for g in range(groups):  # each looks at what the ones before it took
            token = (log_p[:, g] - diversity_penalty * taken).argmax(-1)
            token = torch.where(done[:, g], eos_token_id, token)
            taken.scatter_add_(1, token[:, None], (~done[:, g, None]).to(taken.dtype))
            tokens.append(token)
        now = torch.stack(tokens, 1)
        score += log_p.gather(2, now[..., None])[..., 0].masked_fill(done, 0.0)
        length += ~done
        chosen.append(now)
        done = done | (now == eos_token_id)
        if bool(done.all()):
            break
        step = {"input_ids": now.view(-1, 1)}
        seen = torch.cat([seen, seen.new_ones(len(seen), 1)], 1)
        position = position[:, -1:] + 1
    best = (score / length).argmax(1)
    return torch.stack(chosen, 2)[torch.arange(batch), best]
