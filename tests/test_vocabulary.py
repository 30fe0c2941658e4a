"""−log p of tokens made a few rows at a time, against cross-entropy over all logits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pecrs_lib import vocabulary


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kept", [1, 100, 2**22])
def test_nll_and_gradients_are_those_of_cross_entropy_over_all_logits(monkeypatch, bias, kept):
    monkeypatch.setitem(vocabulary.KEPT, "cpu", kept)
    torch.manual_seed(0)
    R, V, D = 23, 41, 7
    hidden = torch.randn(R, D, dtype=torch.float64, requires_grad=True)
    special = torch.randn(4, D, dtype=torch.float64, requires_grad=True)
    words = torch.randn(V, D, dtype=torch.float64)
    shift = torch.randn(V + 4, dtype=torch.float64) if bias else None
    label = torch.randint(V + 4, (R,))
    label[:4] = torch.arange(V, V + 4)  # tokens of the dialogue's own, too
    weight = torch.randn(R)
    z = vocabulary.logits(hidden, words, special, shift)
    want = F.cross_entropy(z, label, reduction="none")
    wanted = torch.autograd.grad((want * weight).sum(), (hidden, special))
    got = vocabulary.token_nll(hidden, label, words, special, shift)
    found = torch.autograd.grad((got * weight).sum(), (hidden, special))
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        assert torch.equal(vocabulary.token_nll(hidden, label, words, special, shift), got)


def test_nothing_to_score_is_nothing_and_has_a_gradient():
    hidden = torch.empty(0, 3, requires_grad=True)
    special = torch.randn(4, 3, requires_grad=True)
    none = torch.empty(0, dtype=torch.int64)
    nll = vocabulary.token_nll(hidden, none, torch.randn(5, 3), special, None)
    nll.sum().backward()
    assert nll.shape == (0,) and hidden.grad.shape == (0, 3)
    assert torch.equal(special.grad, torch.zeros(4, 3))


def test_half_precision_stays_near_and_keeps_its_types():
    torch.manual_seed(0)
    hidden = torch.randn(9, 16).bfloat16().requires_grad_()
    words, special = torch.randn(30, 16).bfloat16(), torch.randn(4, 16, requires_grad=True)
    label = torch.randint(34, (9,))
    nll = vocabulary.token_nll(hidden, label, words, special, None)
    exact = F.cross_entropy(
        hidden.float() @ torch.cat([words.float(), special]).T, label, reduction="none"
    )
    torch.testing.assert_close(nll, exact, atol=0.1, rtol=0.02)
    nll.sum().backward()
    assert (hidden.grad.dtype, special.grad.dtype) == (torch.bfloat16, torch.float32)
