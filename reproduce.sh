#!/usr/bin/env bash
# Makes the runs behind spec/results from nothing, in one go:
#   ./reproduce.sh MODEL PROBLEMS TEACHER_POOL OUT
# v_hack from the pool and from the shipped pairs; a base pool; Phases 1 and 2 with either; three on-policy arms; both reports.
# About 20 minutes on one H100 at 0.5 B. Settings by environment: STEPS (on-policy, 24), PROBE_STEPS (20), ROLLOUTS (base pool, 320),
# TOKENS (longest sample on-policy, 320), JOBS (on-policy arms at a time, 3), PYTHON, FLAGS (for every command, e.g. --dtype=float32).
set -euo pipefail
[[ $# == 4 ]] || { sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 problems=$2 teacher=$3 out=$4
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
flags=("--model=$model" "--problems=$problems" ${FLAGS:-})
mkdir -p "$out"

[[ -e $out/v_pool.safetensors ]] || "$python" extract_vhack.py "${flags[@]}" --pool="$teacher" --out="$out/v_pool.safetensors"
# The pairs that ship belong to the problems that ship.
[[ -e $out/v_pairs.safetensors ]] || "$python" extract_vhack.py --model="$model" ${FLAGS:-} --out="$out/v_pairs.safetensors"
[[ -e $out/probe/base_pool ]] || "$python" probe_distill.py "${flags[@]}" --base-only --match="$teacher" --rollouts="${ROLLOUTS:-320}" --out="$out/probe"
for v in v_pool v_pairs; do
  for phase in nll grpo; do
    "$python" probe_distill.py "${flags[@]}" --loss-mode=$phase --replay-dirs="$teacher,$out/probe/base_pool" --v-hack="$out/$v.safetensors" \
      --steps="${PROBE_STEPS:-20}" --out="$out/probe"
  done
done
"$python" analyze.py "$out/probe"

onpolicy() {
  local name=$1; shift
  "$python" train.py --preset=fast "${flags[@]}" --difficulty=easy --teacher-dir="$teacher" --teacher-rows=2 --teacher-until=20 --seed=41 \
    --steps="${STEPS:-24}" --max-new-tokens="${TOKENS:-320}" --v-hack="$out/v_pool.safetensors" --out="$out/onpolicy/$name" "$@" >"$out/$name.log" 2>&1
}
onpolicy vanilla --arm=vanilla & arms=($!)
[[ ${JOBS:-3} -ge 2 ]] || wait "${arms[@]}"
onpolicy projected-grad --arm=projected --project-at=grad & arms+=($!)
[[ ${JOBS:-3} -ge 3 ]] || wait "${arms[@]}"
onpolicy projected-update --arm=projected --project-at=update & arms+=($!)
for arm in "${arms[@]}"; do wait "$arm" || { tail -n 3 "$out"/*.log >&2; exit 1; }; done
"$python" analyze.py "$out/onpolicy" --window 8 16
