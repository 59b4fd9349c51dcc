#!/bin/sh
# The whole chain on the embedded model: compress, evaluate, export, ask. Arguments: the vlmc command, the folder to write to.
set -eu
vlmc=${1:-vlmc}
out=${2:-demo-output}
"$vlmc" demo-data "$out/questions" --split test --count 100 --force
"$vlmc" prune --target 2:4 --out "$out/pruned" --force --quiet
"$vlmc" compress --target 2:4 --repair ressa --out "$out/artifact"
"$vlmc" verify-sparsity "$out/artifact" --quiet
"$vlmc" eval "$out/artifact" --beside "$out/pruned" --quiet
"$vlmc" export "$out/artifact" --backend onnx
"$vlmc" export "$out/artifact" --backend tensorrt
echo
"$vlmc" inspect "$out/artifact"
echo
image=$out/questions/images/000001.png
prompt=$(sed -n '1s/.*"value": "<image>\\n\([^"]*\)".*/\1/p' "$out/questions/test.jsonl")
echo "$image: $prompt"
"$vlmc" run "$out/artifact" --image "$image" --prompt "$prompt"
