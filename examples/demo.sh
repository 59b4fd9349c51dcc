#!/bin/sh
# The whole chain on the embedded model: compress, evaluate, export, ask. First argument: the vlmc command.
set -eu
vlmc=${1:-vlmc}
"$vlmc" demo-data demo-data --split test --count 100 --force
"$vlmc" prune --target 2:4 --out pruned --force --quiet
"$vlmc" compress --target 2:4 --repair ressa
"$vlmc" verify-sparsity --quiet
"$vlmc" eval --beside pruned --quiet
"$vlmc" export --backend onnx
"$vlmc" export --backend tensorrt
echo
"$vlmc" inspect
echo
image=demo-data/images/000001.png
prompt=$("$(dirname "$vlmc")/python" -c "import json; print(json.loads(open('demo-data/test.jsonl').readline())['conversations'][0]['value'].split('\n')[-1])")
echo "$image: $prompt"
"$vlmc" run --image "$image" --prompt "$prompt"
