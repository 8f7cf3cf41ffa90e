#!/usr/bin/env bash
# HLLM as it runs in production, in three stages (docs/three-stages.md). Usage: examples/three_stage.sh [OUT [RECIPE]]
# Killed anywhere and run again it ends with the same files; what is finished is not done again.
set -euo pipefail
cd "$(dirname "$0")/.."
out="${1:-three-stage-output}"

if [ $# -lt 2 ]; then
  set -- "$out" recipes/three-stage.toml
  hllm data fetch movielens-100k
  hllm model fetch minilm-l6
  hllm model fetch smollm2-135m
fi

# I: both tiers on short histories. II: the user tier on stored item vectors, with long ones. Both are in the recipe.
hllm train "$2" --out "$out/run"

# III: the vectors of all items and users, as features for a ranking model.
hllm embed --run "$out/run" --out "$out/items"
hllm embed-users --run "$out/run" --out "$out/users"
hllm export-vectors --table "$out/items" --out "$out/features/items-parquet" --format parquet
hllm export-vectors --table "$out/users" --out "$out/features/users-parquet" --format parquet
hllm export-vectors --table "$out/items" --out "$out/features/items-safetensors" --format safetensors
hllm export-vectors --table "$out/users" --out "$out/features/users-safetensors" --format safetensors
