"""PECRS in one sitting: a frozen language model, LoRA, four special tokens, items as text.

The library backs the notebooks; each module is one step of the way from data to result::

    data -> context -> items -> packing -> negatives -> losses -> backbone -> model
         -> batches -> ranking -> protocol -> checkpoint -> warmstart -> training -> recommend
         -> decoding -> generation -> chat, metrics, baselines -> evaluation -> assessment
         -> figures -> widgets, cli

Packages beside it: `serving` (HTTP), `reproduction` (the paper's tables and claims), `rating`
(people as judges), `zero_shot` (language models without training), `costs`, `simulator` (MiniReel),
`ilm` and `pod` (two related systems, each with a flow of its own).
"docs/architecture.md" walks one dialogue through all of it.

Shapes are written with one alphabet everywhere:

======  =====================================================
``B``   batch: packed dialogue windows
``T``   tokens of a sequence
``M``   candidates (negatives plus positives) of a turn
``N``   items of the catalogue
``P``   data points: one recommended item (or none) of one recommender turn
``D``   hidden size of the language model
``V``   vocabulary
======  =====================================================

Source: Ravaut et al., *Parameter-Efficient Conversational Recommender System as a Language
Processing Task*, EACL 2024. "Eq 3" in a docstring is equation 3 of that paper.
"""

__version__ = "0.1.0"
