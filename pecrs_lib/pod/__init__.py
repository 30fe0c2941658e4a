"""POD, prompt distillation: recommendation as text generation, with prompts of learned vectors.

A related system, beside the flow. In the order of its data::

    data.interactions -> item_ids, leak -> vocabulary -> prompts -> samples -> batches -> model
         -> training -> recommending (-> next_item) -> context_prompt -> tables, pictures

A sequence-to-sequence model (T5) reads ``[P_task ; a prompt with user and item ids]`` and writes
the id of the next item, of the best of some candidates, or a sentence about an item.

======  =====================================================
``B``   batch: samples
``T``   tokens of a prompt
``K``   continuous prompt vectors of a task
``S``   tokens of an answer
``L``   tokens of an item id
``N``   items
``U``   users
``D``   hidden size
======  =====================================================

Source: Li, Zhang and Chen, *Prompt Distillation for Efficient LLM-based Recommendation*, CIKM 2023,
and its public code; "whole words" and item numbers as in P5 (Geng et al. 2022).
"""
