"""Model directories after a bad download, from a quantised repository, of a newer library, or of somebody hostile."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hllm.errors import CheckpointError, ConfigError
from hllm.models.backbone.backbone import load_backbone
from hllm.models.backbone.content import fingerprint_of_model
from hllm.models.backbone.tokenizer import copy_tokenizer, load_tokenizer
from hllm.models.build import ModelConfig, outline_model
from hllm.sources.language_models import resolve_backbone

pytestmark = pytest.mark.reliability("strangers")

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 135\n"
WRONG = (ConfigError, CheckpointError)


@pytest.fixture
def model(tiny_llama, tmp_path) -> Path:
    return shutil.copytree(tiny_llama, tmp_path / "model")


def use(folder: Path) -> None:
    load_backbone(folder, num_layers=None, pretrained=True)
    load_tokenizer(folder, 8)
    fingerprint_of_model(folder)


def configured(folder: Path, **values: object) -> Path:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))
    return folder


def indexed(folder: Path, name: object) -> Path:
    """Let an index say that all tensors are in the file `name`."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(tensors, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("damage", "match"),
    [
        (lambda file: file.write_text(POINTER), "is a pointer of Git LFS, not the file itself: run git lfs pull"),
        (lambda file: file.write_bytes(b""), "is empty: its download failed"),
        (lambda file: (file.unlink(), file.mkdir()), "is no file"),
        (lambda file: (file.unlink(), os.mkfifo(file)), "is no file"),
        (lambda file: (file.unlink(), file.symlink_to(file.name)), r"cannot be read|is no file"),
        (lambda file: (file.unlink(), file.symlink_to("../secret")), "is a symbolic link that leads out of the model"),
        (lambda file: (file.unlink(), file.symlink_to(file.parent.parent / "secret")), "link that leads out of the"),
    ],
    ids=["pointer", "empty", "folder", "pipe", "loop", "link", "absolute-link"],
)
def test_a_file_that_is_not_there_as_itself_is_named(model, name, damage: Callable[[Path], object], match):
    """The content of a linked merges.txt went into every checkpoint; a pointer ended in a traceback of safetensors."""
    (model.parent / "secret").write_text("mine")
    damage(model / name)
    with pytest.raises(WRONG, match=match):
        use(model)
    with pytest.raises(WRONG, match=match):
        fingerprint_of_model(model)


@pytest.mark.parametrize("name", ["merges.txt", "vocab.txt", "added_tokens.json", "spiece.model"])
def test_no_linked_file_gets_into_a_checkpoint(model, name):
    (model.parent / "secret").write_text("mine")
    (model / name).symlink_to("../secret")
    with pytest.raises(ConfigError, match="is a symbolic link that leads out of the model directory"):
        copy_tokenizer(model, model.parent / "checkpoint")
    assert not (model.parent / "checkpoint" / name).exists()


def test_links_inside_of_the_directory_and_of_the_hugging_face_cache_are_followed(model, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "1f2e"
    (tmp_path / "models--a--b" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in model.iterdir():
        shutil.copy(file, tmp_path / "models--a--b" / "blobs" / f"0{file.name}")
        (snapshot / file.name).symlink_to(f"../../blobs/0{file.name}")
    use(snapshot)
    (model / "model.safetensors").rename(model / "weights")
    (model / "model.safetensors").symlink_to("weights")
    (tmp_path / "link").symlink_to(model)
    use(tmp_path / "link")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "."])
def test_a_file_that_may_not_be_read_is_named(tiny_llama, name, stranger):
    folder = shutil.copytree(tiny_llama, stranger / "model")
    folder.chmod(0o755)
    (folder / name).chmod(0)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(WRONG, match=r"cannot be read: Permission denied"):
        use(folder)
    with pytest.raises(WRONG, match=r"cannot be read: Permission denied"):
        fingerprint_of_model(folder)


@pytest.fixture
def stranger() -> Iterator[Path]:
    """A folder that everybody may enter; a test may give up being root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        user = os.geteuid()
        yield Path(folder)
        os.seteuid(user)


@pytest.mark.parametrize("size", [1, 7, 0.5, -1])
def test_weights_that_are_cut_are_named(model, size):
    file = model / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: size if isinstance(size, int) else int(len(content) * size)])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is cut or damaged, or no safetensors file: .*fetch"):
        use(model)


@pytest.mark.parametrize(
    "name", ["model.bin", "../model.safetensors", "/etc/x.safetensors", "a/b.safetensors", "..", ""]
)
def test_an_index_names_safetensors_of_its_own_directory_alone(model, name):
    """transformers read pickles and files of other directories through model.safetensors.index.json."""
    indexed(model, name)
    shutil.copy(model / "part.safetensors", model.parent / "model.safetensors")
    torch.save(load_file(model / "part.safetensors"), model / "model.bin")
    with pytest.raises(CheckpointError, match=r"names '.*'; expected names of \.safetensors files in the model direct"):
        use(model)


@pytest.mark.parametrize(
    "content", ["{}", '{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": {"a": 1}}', "[]"]
)
def test_an_index_that_is_none_is_explained(model, content):
    indexed(model, "part.safetensors")
    use(model)
    (model / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"has no weight_map from tensors to files|holds list, expected an obj"):
        use(model)


def test_a_shard_that_is_missing_or_links_elsewhere_is_named(model):
    indexed(model, "part.safetensors")
    (model / "part.safetensors").rename(model.parent / "part.safetensors")
    with pytest.raises(CheckpointError, match=r"part\.safetensors is missing: fetch the model again"):
        use(model)
    (model / "part.safetensors").symlink_to("../part.safetensors")
    with pytest.raises(CheckpointError, match=r"part\.safetensors is a symbolic link that leads out"):
        use(model)


@pytest.mark.parametrize("content", ["{", "null", "[1]", '"x"', "\x00", "\xff", '{"a": ' * 100_000, "[" * 100_000])
def test_a_config_that_is_none_is_explained(model, content):
    (model / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"is not JSON|expected an object in braces|is nested too deeply"):
        use(model)


@pytest.mark.parametrize(
    "how",
    [
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        {"quant_method": "gptq", "bits": 4},
        {"quant_method": "nobody-knows"},
        {},
        [],
        "int8",
    ],
    ids=str,
)
def test_quantised_weights_are_refused_whatever_library_made_them(model, how):
    with pytest.raises(ConfigError, match=r"says that the weights are quantised .* hllm reads plain floats only: take"):
        use(configured(model, quantization_config=how))


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 1e9},
        {"num_labels": 10**9},
        {"num_local_experts": 10**9},
        {"text_config": {"num_hidden_layers": 10**9}},
        {"num_hidden_layers": float("inf")},
        {"num_hidden_layers": float("nan")},
    ],
    ids=str,
)
def test_a_config_of_more_than_a_model_has_is_refused_at_once(model, values):
    """num_hidden_layers = 1e9 made transformers build layers until the memory was full."""
    started = time.monotonic()
    with pytest.raises(ConfigError, match=r"says num_\w+ = \S+; expected at most [\d,]+"):
        use(configured(model, **values))
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("change", ["fp8", "int8", "packed"])
def test_weights_in_few_bits_are_refused_by_their_headers(model, change):
    """A file with weights in 8 bits and a scale for each was loaded without the scales: the states were garbage."""
    weights = load_file(model / "model.safetensors")
    for name in [name for name in weights if "proj" in name]:
        weight = weights.pop(name)
        scale = weight.abs().max() / 100
        if change == "packed":
            weights[name.replace("weight", "qweight")] = (weight / scale).to(torch.int32)
        else:
            kind = torch.float8_e4m3fn if change == "fp8" else torch.int8
            weights[name] = (weight / scale).to(kind)
        weights[f"{name}_scale"] = scale.reshape(1)
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"14 of \d+ tensors in .* are quantised, and nothing here reads their sc"
    ):
        use(model)


def test_a_config_may_not_name_other_weights(model):
    with pytest.raises(ConfigError, match="names a file of weights"):
        use(configured(model, transformers_weights="part.safetensors"))


def test_a_plan_says_what_training_would_say(model, tiny_llama, tmp_path):
    """An outline has no weights, and a plan of a model whose download had failed said that all was well."""
    config = {"item": {"kind": "id"}, "user": {"kind": "llm", "backbone": str(model)}}
    outline_model(ModelConfig.from_dict(config, where="test"), num_items=7, num_actions=0, base=tmp_path)
    (model / "model.safetensors").write_text(POINTER)
    with pytest.raises(CheckpointError, match="is a pointer of Git LFS"):
        outline_model(ModelConfig.from_dict(config, where="test"), num_items=7, num_actions=0, base=tmp_path)


def test_a_backbone_that_cannot_be_looked_for_is_explained(stranger):
    with pytest.raises(ConfigError, match="cannot be looked for: File name too long"):
        resolve_backbone("x" * 5000, stranger)
    (stranger / "shut").mkdir(mode=0)
    if os.getuid() == 0:
        os.seteuid(65534)
    with pytest.raises(ConfigError, match="cannot be looked for: Permission denied"):
        resolve_backbone("shut/model", stranger)
