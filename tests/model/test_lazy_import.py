"""Reading a recipe needs the model's configuration and not torch, which takes seconds to import."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


@pytest.mark.parametrize(
    "statement",
    [
        "import sqzb.model, sqzb.hub, sqzb.files, sqzb.errors",
        "from sqzb.model.config import SqueezeBertConfig; SqueezeBertConfig()",
        "from sqzb.model import SqueezeBertConfig; SqueezeBertConfig()",
    ],
)
def test_the_configuration_comes_without_heavy_libraries(statement: str) -> None:
    program = f"{statement}\nimport sys; print(*(name for name in {HEAVY} if name in sys.modules))"
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == []


def test_every_class_is_found_in_the_package_and_nothing_else() -> None:
    import sqzb.model

    for name in sqzb.model.__all__:
        assert getattr(sqzb.model, name).__name__ == name
    with pytest.raises(AttributeError, match="SqueezeBertForGeneration"):
        sqzb.model.SqueezeBertForGeneration  # noqa: B018
