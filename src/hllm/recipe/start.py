"""Training may start with the weights of a run or an imported checkpoint, and then its model need not be named."""

# Proved by tests/jobs/test_import_checkpoint.py.

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hllm import artifacts
from hllm.config import Config, laid_over
from hllm.errors import CheckpointError, ConfigError

_FROM_THE_WEIGHTS = ("backbone", "num_layers", "pretrained")


class ImportedFile(Config):
    """A file of published weights, which `hllm import-checkpoint` read."""

    file: str
    """Its name."""
    sha256: str
    """SHA-256 of its bytes."""


class StartConfig(Config):
    """The trained weights that training starts with. What [model] leaves out is as in their own model."""

    weights: str
    """Directory of a finished run, or of a checkpoint, such as `hllm import-checkpoint` writes."""
    merge_lora: bool = False
    """Make LoRA additions part of the weights first: the model is then one without LoRA."""
    checkpoint: str | None = None
    """Fingerprint of the checkpoint; filled in when the recipe is read."""
    imported: ImportedFile | None = None
    """The file that the weights were once imported from; filled in when the recipe is read."""

    @property
    def sentence(self) -> str:
        """Return where the weights come from, for people."""
        if self.imported is not None:
            return f"starts with weights imported from {self.imported.file} (sha256 {self.imported.sha256[:12]}…)"
        return f"starts with the weights of checkpoint {str(self.checkpoint)[:12]}…"

    def folder(self, base: Path) -> Path:
        """Return the checkpoint's directory; ConfigError if it is another one than when the recipe was read."""
        folder = _checkpoint_at(base / self.weights)
        found = artifacts.read_manifest(folder, "checkpoint").fingerprint
        if found != self.checkpoint:
            raise ConfigError(
                f"start.weights: {folder} is another checkpoint than the recipe was read with (fingerprint "
                f"{found[:12]}…, expected {str(self.checkpoint)[:12]}…); restore it, or give another --out"
            )
        return folder


def with_start(values: Mapping[str, Any], base: Path) -> dict[str, Any]:
    """Return a recipe's values with the model of `start.weights` below its own; without such a table as they are.

    Left out, `stages` are one that trains nothing, and `compat` is "reference" for imported weights.
    """
    start = values.get("start")
    if not isinstance(start, Mapping) or start.get("checkpoint") or not isinstance(start.get("weights"), str):
        return dict(values)
    folder = _checkpoint_at(base / start["weights"])
    try:
        manifest = artifacts.read_manifest(folder, "checkpoint")
    except CheckpointError as error:
        raise ValueError(f"start.weights: {error}") from None
    found = {"checkpoint": manifest.fingerprint, "imported": manifest.details.get("imported")}
    filled = {**values, "start": {**start, **found}}
    filled["model"] = _model(manifest.details["model"], values.get("model", {}), folder, bool(start.get("merge_lora")))
    filled.setdefault("about", f"Starts with the weights of {folder.name if found['imported'] else start['weights']}")
    filled.setdefault("stages", [{"name": "as it is", "epochs": 0}])
    if found["imported"] is not None:
        filled.setdefault("compat", "reference")
    return filled


def _model(kept: Mapping[str, Any], given: Any, folder: Path, merge_lora: bool) -> dict[str, Any]:
    """Return the model that the weights are of, under what the recipe says; ValueError for what it cannot say."""
    model: dict[str, Any] = dict(kept)
    given = given if isinstance(given, Mapping) else {}
    if "temperature" in given:
        raise ValueError("model.temperature is that of start.weights: leave it out")
    for tier in ("item", "user"):
        said = given.get(tier)
        wrong = [name for name in _FROM_THE_WEIGHTS if isinstance(said, Mapping) and name in said]
        if wrong:
            raise ValueError(f"model.{tier}.{wrong[0]} is that of start.weights: leave it out, or leave out [start]")
        if "backbone" in model[tier]:
            changes = {"backbone": str(folder / f"{tier}_backbone")} | ({"lora": None} if merge_lora else {})
            model[tier] = {**model[tier], **changes}
    merged: dict[str, Any] = laid_over(model, dict(given))
    return merged


def _checkpoint_at(path: Path) -> Path:
    """Return the checkpoint at `path`, of a run its best one; ConfigError if there is neither."""
    if (path / "recipe.json").is_file():
        return path / "checkpoints" / "best"
    if artifacts.standing(path).joinpath(artifacts.MANIFEST).is_file():
        return path
    raise ConfigError(
        f"start.weights: {path} holds neither a run nor a checkpoint; expected a directory that hllm train or hllm "
        "import-checkpoint wrote"
    )
