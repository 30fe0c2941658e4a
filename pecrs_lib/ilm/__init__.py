"""ILM, the Item-Language Model (Yang et al. 2024, arXiv 2406.02844): interactions for a frozen LM.

A system beside PECRS, with a flow of its own::

    data.interactions -> cf -> qformer -> alignment (stage 1) -> tasks -> language (stage 2)
                                                   -> titles (-> next_item), evaluation -> bridge

Its paper gives no code; sizes, templates and the backbone are ours.
"""
