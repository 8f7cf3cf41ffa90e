#!/usr/bin/env bash
# The demo's verbs on the real data and models, trained too little to be good: under two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
out="$(mktemp -d)"
trap 'rm -rf "$out"' EXIT

hllm data fetch movielens-100k
hllm model fetch minilm-l6
hllm model fetch smollm2-135m

hllm train recipes/smoke.toml --out "$out/run"
bash examples/three_stage.sh "$out" recipes/smoke.toml   # trained already: the vectors of items and users, exported
hllm evaluate --run "$out/run"
hllm recommend --run "$out/run" --user 42 --k 3
hllm recommend --run "$out/run" --new-item "title: The Phantom Menace; genres: Action Adventure Sci-Fi" --k 3
hllm similar --run "$out/run" --text "title: Toy Story; genres: Animation" --k 3 --json
hllm report --run "$out/run"
