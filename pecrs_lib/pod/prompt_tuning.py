"""The contrast: a prompt learned for a model whose weights stay as they are (peft).

Comes after `training`. POD trains prompt *and* model, which is what its name hides. Prompt tuning
(Lester et al. 2021) trains the K vectors alone; how far they carry says what the weights do.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from copy import deepcopy

from peft import PromptTuningConfig, TaskType, get_peft_model
from torch import nn

from pecrs_lib.pod.batches import Batch
from pecrs_lib.pod.config import PODConfig
from pecrs_lib.pod.model import POD
from pecrs_lib.pod.training import fit


def tuned(model: POD, task: int, batches: Iterable[Batch], config: PODConfig) -> POD:
    """A copy of `model` with `config.prompts` vectors for one task, the only ones trained.

    Args:
        model: trained, with K = 0; left as it is.
        batches: of the task, with the templates they are to be asked with.
        config: number of vectors, steps, rate and seed of the tuning.

    Raises:
        ValueError: the model has prompts already.
    """
    if model.config.prompts:
        raise ValueError(f"the frozen model has {model.config.prompts} prompt vectors of its own")
    frozen = deepcopy(model)
    peft = PromptTuningConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, num_virtual_tokens=config.prompts,
        num_transformer_submodules=1,
    )  # fmt: skip
    with warnings.catch_warnings():  # peft reads a property that transformers 5 renames
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        frozen.t5 = get_peft_model(frozen.t5, peft)
    frozen.word.requires_grad_(False)
    weights = [p for p in frozen.t5.parameters() if p.requires_grad]
    fit(frozen, weights, batches, config)
    found = deepcopy(model)
    vectors = model.prompt.new_zeros(len(model.prompt), config.prompts, model.config.width)
    vectors[task] = frozen.t5.get_prompt(1)[0].detach()
    found.prompt = nn.Parameter(vectors)
    return found
