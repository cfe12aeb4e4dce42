#!/usr/bin/env bash
# Six runs at once on one GPU that cannot hold them together: do all six finish?
#
#     bash tests/shared_card.sh MODEL PROBLEMS [OUT]     with a model of about 0.5 B; ROOM=22 STEPS=4
#
# A process holds all of the card but ROOM GB for as long as it takes, so that two or three of the six fit at
# once (each says what it needs at the least). OUT/outcome.txt has what each of them said of waiting; the exit
# code is 0 if all six finished. No test: it takes a GPU and some five minutes.
set -u
cd "$(dirname "$0")/.."
model=$1 problems=$2 out=${3:-out/shared_card} room=${ROOM:-22} steps=${STEPS:-4} python=${PYTHON:-python}
mkdir -p "$out"
flags=(--model="$model" --problems="$problems" --preset=fast --prompts=16 --group=8 --max-new-tokens=300
  --sample-rows=128 --eval-samples=1 --eval-limit=4 --save-every=2 --workers=2)

# One run alone: fills the cache and makes v_hack
"$python" train.py "${flags[@]}" --arm=vanilla --steps=1 --seed=40 --eval-samples=0 --out="$out/alone" >"$out/alone.log" 2>&1 ||
  { tail -3 "$out/alone.log"; exit 1; }

"$python" - "$room" >"$out/ballast.log" 2>&1 <<'PY' &
import sys
import time

import torch

free, total = torch.cuda.mem_get_info()
held = torch.empty(int(free - float(sys.argv[1]) * 1e9), dtype=torch.uint8, device="cuda")
print(f"ballast holds {held.numel() / 1e9:.1f} GB of {total / 1e9:.1f}", flush=True)
time.sleep(3600)
PY
ballast=$!
trap 'kill $ballast 2>/dev/null' EXIT
until grep -q "ballast holds" "$out/ballast.log"; do
  kill -0 $ballast 2>/dev/null || { cat "$out/ballast.log"; exit 1; }
  sleep 0.5
done

runs=() begun=$SECONDS
for i in 1 2 3 4 5 6; do
  arm=$([ $((i % 2)) = 0 ] && echo projected || echo vanilla)
  {
    "$python" train.py "${flags[@]}" --arm=$arm --steps="$steps" --seed=$((40 + i)) --out="$out/$i" \
      --v-hack="$out/alone/v_hack.safetensors"
    echo "ended with $? after $((SECONDS - begun)) s"
  } >"$out/$i.log" 2>&1 &
  runs+=($!)
done
wait "${runs[@]}"

finished=0
{
  cat "$out/ballast.log"
  for i in 1 2 3 4 5 6; do
    ended="not finished"
    [ -f "$out/$i/summary.json" ] && ended=finished && finished=$((finished + 1))
    echo "--- run $i: $ended"
    tr '\r' '\n' <"$out/$i.log" | grep "this run needs\|does not fit\|fits after\|trying again\|error:\|Error\|ended with"
  done
  echo "finished: $finished of 6"
} | tee "$out/outcome.txt"
grep -q "finished: 6 of 6" "$out/outcome.txt"
