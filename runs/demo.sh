#!/usr/bin/env bash
# From nothing to recommendations: fetch, train a baseline and HLLM, compare, recommend, report.
# Run it again and it goes on where it stopped, or reuses what is finished.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-demo-output}"

hllm data fetch movielens-100k
hllm model fetch minilm-l6
hllm model fetch smollm2-135m

hllm train recipes/sasrec-movielens.toml --out "$out/sasrec"
hllm train recipes/demo.toml --out "$out/hllm"

hllm evaluate --run "$out/hllm" --against "$out/sasrec" --report

hllm recommend --run "$out/hllm" --user 42 --k 8
hllm recommend --run "$out/hllm" --history "50,172,181" --k 8
hllm recommend --run "$out/hllm" --new-item "title: The Phantom Menace; year: 1999; genres: Action Adventure Sci-Fi" --k 5
hllm similar --run "$out/hllm" --item 1 --k 5
