"""Published weights become a run: with the data of a recipe, and whatever stages it trains on top."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hllm.api import Recommender, fit_recipe
from hllm.errors import ConfigError
from hllm.models.published.weights import ImportedWeights, import_published


def import_run(
    weights: Path,
    recipe: Path,
    out: Path,
    *,
    item_config: Path,
    user_config: Path,
    max_history: int = 50,
    max_tokens: int = 256,
    overrides: Sequence[str] = (),
) -> tuple[ImportedWeights, Recommender]:
    """Import `weights` as `import_published` does, and train `recipe` from them into the run `out`.

    A recipe without [model] has the imported one, and without [[stages]] it is validated and kept as it is. Called
    again after a stop it goes on. Raises as `import_published` and `training.fit.fit` do, and ConfigError
    where the base model has no tokenizer.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".import-", dir=out.parent) as folder:
        checkpoint = Path(folder).resolve() / weights.name
        done = import_published(
            weights,
            item_config=item_config,
            user_config=user_config,
            out=checkpoint,
            max_history=max_history,
            max_tokens=max_tokens,
        )
        if done.tokenizer != "copied":
            raise ConfigError(f"the items' texts cannot be read without a tokenizer. Tokenizer: {done.tokenizer}")
        start = f"start.weights={json.dumps(str(checkpoint))}"
        return done, fit_recipe(recipe, out, [*overrides, start])
