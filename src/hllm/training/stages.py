"""What a stage does to the model: which of its parts learn."""

from hllm.models.recommender import SequentialRecommender
from hllm.recipe.stages import StageConfig


def set_learning(model: SequentialRecommender, stage: StageConfig, learnable: frozenset[str]) -> None:
    """Let those of the `learnable` parameters learn that the stage does not freeze."""
    frozen: set[str] = set()
    if stage.item_tier == "frozen":
        frozen.add("item_llm")
    if stage.user_tier == "frozen":
        frozen |= {"user", "inputs"}
    for part, parameters in model.parts().items():
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in learnable and part not in frozen)
