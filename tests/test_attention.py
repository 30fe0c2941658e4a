"""Candidates beyond the mask see the shared tokens and themselves: as a mask over all would say."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from pecrs_lib.attention import branch_attention
from pecrs_lib.packing import additive, pack, visible
from tests.test_one_pass import build, windows_for, with_negatives


def slow(query, key, value, mask, groups, scale):
    """A mask over all keys: those beyond the given one are seen by the query in their place."""
    B, _, T, _ = query.shape
    S, alone = mask.shape[-1], key.shape[2] - mask.shape[-1]
    whole = torch.full((B, 1, T, key.shape[2]), torch.finfo(query.dtype).min, dtype=query.dtype)
    whole[..., :S] = mask
    for c in range(alone):
        whole[:, :, T - alone + c, S + c] = 0
    key, value = (x.repeat_interleave(groups, 1) for x in (key, value))
    weight = ((query @ key.transpose(-1, -2)) * scale + whole).softmax(-1)
    return (weight @ value).transpose(1, 2)


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 0.06)]
)
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize(
    ("queries", "shared", "alone"), [(12, 7, 5), (5, 9, 5), (6, 6, 0), (4, 1, 3)]
)
def test_equal_to_a_mask_over_all_with_gradients(queries, shared, alone, groups, dtype, tolerance):
    """Without a cache (queries = shared + alone), with one (alone only), and without candidates;
    in float64 by the plain form, else by the fused one.
    """
    g = torch.Generator().manual_seed(queries)
    shapes = [(2, 3, queries, 8), *[(2, 3 // groups, shared + alone, 8)] * 2]
    q, k, v = (torch.randn(s, generator=g).to(dtype) for s in shapes)
    seen = torch.rand(2, 1, queries, shared, generator=g) < 0.6
    seen[..., 0] = True
    mask = additive(seen, q.dtype)
    found = []
    for attend in (
        lambda q, k, v: branch_attention(
            SimpleNamespace(num_key_value_groups=groups), q, k, v, mask, scaling=0.3
        )[0],
        lambda q, k, v: slow(q, k, v, mask, groups, 0.3),
    ):
        leaves = [x.clone().requires_grad_() for x in (q, k, v)]
        out = attend(*leaves)
        out.sin().sum().backward()
        found.append([out, *[x.grad for x in leaves]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=tolerance, rtol=tolerance)


def test_without_a_mask_it_is_plain_attention():
    q, k, v = torch.randn(3, 1, 2, 4, 8).unbind(0)
    out, _ = branch_attention(nn.Identity(), q, k, v, None, is_causal=True)
    want = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(out, want.transpose(1, 2))


def test_a_model_reads_the_same_with_a_mask_over_all(tiny_backbone, catalogue, dialogues):
    model, features = build(tiny_backbone, catalogue)
    batch = with_negatives(pack(windows_for(model, dialogues, catalogue)), len(catalogue), 9)
    v = model.items.catalogue(features)
    x, hidden = model.read(batch, v, torch.arange(len(v)))
    mask = additive(visible(batch.layout, batch.layout), x.dtype)
    real = batch.layout.branch >= 0
    assert batch.shared < mask.shape[-1]
    want = model.backbone(x, batch.position, mask)
    torch.testing.assert_close(hidden[real], want[real], atol=1e-5, rtol=1e-5)


def test_gradients_where_one_key_takes_all():
    """Own logits far above and far below the shared ones: p is 1 or 0 to the last digit."""
    g = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(1, 1, 4, 8, generator=g) for _ in range(3))
    k[0, 0, 1:] = 0
    k[0, 0, 2], k[0, 0, 3] = 40 * q[0, 0, 2], -40 * q[0, 0, 3]
    mask = additive(torch.ones(1, 1, 4, 1, dtype=torch.bool), q.dtype)
    found = []
    for kind in (torch.float32, torch.float64):
        leaves = [x.detach().to(kind, copy=True).requires_grad_() for x in (q, k, v)]
        out, _ = branch_attention(nn.Identity(), *leaves, mask.to(kind), scaling=1.0)
        (1e-6 * out.sin().sum()).backward()
        found.append([out, *[1e6 * x.grad for x in leaves]])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)
