#!/usr/bin/env bash
# Makes the runs of the results pages of 2026-11-22 and 23 from nothing, in one go:
#   ./reproduce.sh MODEL PROBLEMS TEACHER_POOL OUT
# v_hack from the pool and from the shipped pairs; a base pool; Phases 1 and 2 with either; three on-policy
# arms; both reports.
# With JOBS=3 the on-policy arms run beside everything that comes after v_hack from the pool. At 0.5 B in fp32
# they take 37 GB of GPU memory together, and a probe beside them about 20 more. With fewer JOBS they follow
# the probes, so many at a time.
# Settings by environment: STEPS (on-policy, 24), PROBE_STEPS (20), ROLLOUTS (base pool, 320), TOKENS (longest
# sample on-policy, 320), JOBS (3), PYTHON, FLAGS (for every command, e.g. --dtype=float32).
set -euo pipefail
[[ $# == 4 ]] || { sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2; }
model=$1 problems=$2 teacher=$3 out=$4 jobs=${JOBS:-3} arms=()
python=${PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
flags=("--model=$model" "--problems=$problems" ${FLAGS:-})
mkdir -p "$out"
trap 'kill "${arms[@]}" 2>/dev/null; exit 130' INT TERM
trap wait EXIT # a probe that fails does not take hours of on-policy steps with it

onpolicy() { # NAME, what sets the arm apart
  local name=$1; shift
  [[ ${#arms[@]} -lt $jobs ]] || wait "${arms[-$jobs]}"
  "$python" train.py --preset=fast "${flags[@]}" --difficulty=easy --seed=41 --steps="${STEPS:-24}" \
    --teacher-dir="$teacher" --teacher-rows=2 --teacher-until=20 --max-new-tokens="${TOKENS:-320}" \
    --v-hack="$out/v_pool.safetensors" --out="$out/onpolicy/$name" "$@" >"$out/$name.log" 2>&1 &
  arms+=($!)
}
all_arms() {
  onpolicy vanilla --arm=vanilla
  onpolicy projected-grad --arm=projected --project-at=grad
  onpolicy projected-update --arm=projected --project-at=update
}

[[ -e $out/v_pool.safetensors ]] ||
  "$python" extract_vhack.py "${flags[@]}" --pool="$teacher" --out="$out/v_pool.safetensors"
[[ $jobs -lt 3 ]] || all_arms
# The pairs that ship belong to the problems that ship.
[[ -e $out/v_pairs.safetensors ]] ||
  "$python" extract_vhack.py --model="$model" ${FLAGS:-} --micro-tokens=4096 --out="$out/v_pairs.safetensors"
[[ -e $out/probe/base_pool ]] ||
  "$python" probe_distill.py "${flags[@]}" --base-only --match="$teacher" --rollouts="${ROLLOUTS:-320}" \
    --out="$out/probe"
for v in v_pool v_pairs; do
  for phase in nll grpo; do
    "$python" probe_distill.py "${flags[@]}" --loss-mode=$phase --v-hack="$out/$v.safetensors" \
      --replay-dirs="$teacher,$out/probe/base_pool" \
      --steps="${PROBE_STEPS:-20}" --micro-tokens=4096 --out="$out/probe"
  done
done
"$python" analyze.py "$out/probe"

[[ $jobs -ge 3 ]] || all_arms
for arm in "${arms[@]}"; do wait "$arm" || { tail -n 3 "$out"/*.log >&2; exit 1; }; done
"$python" analyze.py "$out/onpolicy" --window 8 16
