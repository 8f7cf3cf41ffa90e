"""The one door to a pre-trained language model, and the devices that make it fast.

Read `backbone.py` first: the model, and how it is loaded. `configs.py`, `tokenizer.py` and `lora.py` stand beside it.
All else is speed, and changes results by rounding alone. An example shows what a network can do, once, when it has
weights (`Backbone.probe`). The answers are its facts (`facts.py`), which a checkpoint keeps. `fast = false` in a
recipe, or `load_backbone(fast=False)`, switches off all but `compiled.py`, which a recipe has to ask for.

| device | saves | holds for | equality is proved in | also off where |
| --- | --- | --- | --- | --- |
| `key_values.py` | reading the beginning that texts share | causal networks | `test_key_values.py` | pooling "mean" |
| `packs.py` | padding of short histories | causal networks on a CPU | `test_packs.py` | little is padded |
| `rows.py` | all padding | causal networks on CUDA in half precision | `test_rows.py` | the kernel disagrees |
| `last_layer.py` | most of the last feed-forward net | pre-norm decoders | `test_backbone.py` | all are read |
| `rms_norm.py` | passes over memory in the backward pass | plain RMS norms, CPU in bf16 | `test_rms_norm.py` | fp32 |
| `compiled.py` | passes over memory in all layers | any network | `test_compiled.py` | `compile = false` |
"""
