"""Files that sentence-transformers (5.4 or later) reads beside a saved SqueezeBERT.

Without them the library opens the folder too, but reports the head's tensors as unexpected: it
takes the bare encoder's class. The files name the class that the folder was saved by, and mean
pooling of the last hidden states, which is the library's own default.
"""

import json
from pathlib import Path

from sqzb.files import write_json
from sqzb.model.config import MODEL_TYPE, architectures, model_type

# By the end of a class's name: the task that makes sentence-transformers open this class.
TASKS = {"ForSequenceClassification": "sequence-classification", "ForMaskedLM": "fill-mask"}
MODULES = ["Transformer", "Pooling"]


def write_modules(folder: Path, max_length: int | None = None) -> None:
    """Write the files beside a saved SqueezeBERT; nothing beside another model.

    There is no task for a classifier of tokens, so nothing is written beside that either.

    max_length: tokens of the longest text; None for the model's positions
    """
    endings = [name.removeprefix("SqueezeBert") for name in architectures(folder)]
    task = next((TASKS[ending] for ending in endings if ending in TASKS), None)
    if model_type(folder) != MODEL_TYPE or task is None:
        return
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    positions = config["max_position_embeddings"]
    modules = []
    for index, name in enumerate(MODULES):
        path = f"{index}_{name}" if index else ""
        of_library = f"sentence_transformers.models.{name}"
        modules.append({"idx": index, "name": str(index), "path": path, "type": of_library})
    write_json(folder / "modules.json", modules)
    last_hidden_state = ["hidden_states", -1]
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": task,
            "max_seq_length": min(max_length or positions, positions),
            "modality_config": {
                "text": {"method": "forward", "method_output_name": last_hidden_state}
            },
            "module_output_name": "token_embeddings",
        },
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    write_json(
        folder / "1_Pooling" / "config.json",
        {"word_embedding_dimension": config["hidden_size"], "pooling_mode_mean_tokens": True},
    )
