#!/usr/bin/env bash
# Sets everything up on a fresh machine (a virtual environment in .venv) and runs one of these:
#   ./run.sh demo      the main job with its defaults, then the tables and pictures of what it did
#   ./run.sh phases    all of it on the embedded model: pools, v_hack, Phases 1 and 2, 40 on-policy steps of vanilla, projected, random
#   ./run.sh test      the tests
#   ./run.sh setup     only the virtual environment
# Further arguments go to train.py (phases: to the on-policy runs) or pytest. SEEDS: seeds of the on-policy runs of phases (41).
# PYTHON names another interpreter (3.11 or newer), TORCH_INDEX a package index for torch, e.g.
# https://download.pytorch.org/whl/cpu where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")"

setup() {
  local wanted; wanted=$(cksum requirements.txt)
  [[ -f .venv/ready && $(<.venv/ready) == "$wanted" ]] && return
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hackward needs Python 3.11 or newer")'
  # torch first, so that a build chosen by TORCH_INDEX (a CPU-only one saves gigabytes) is the one that the rest finds.
  .venv/bin/python -m pip install --quiet --disable-pip-version-check ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$(grep '^torch==' requirements.txt)"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  echo "$wanted" >.venv/ready
}

phases() { # OUT, flags of the on-policy runs
  local out=$1 python=.venv/bin/python; shift
  $python probe_distill.py --model=embedded --base-only --rollouts=320 --max-new-tokens=200 --temperature=1 "--out=$out/probe"
  $python extract_vhack.py --model=embedded "--out=$out/v_pairs.safetensors"
  $python extract_vhack.py --model=embedded --pool=data/embedded/teacher_pool "--out=$out/v_pool.safetensors"
  for v in v_pairs v_pool; do
    for phase in nll grpo; do
      $python probe_distill.py --model=embedded --loss-mode=$phase "--v-hack=$out/$v.safetensors" "--out=$out/probe"
    done
  done
  $python analyze.py "$out/probe"
  for seed in ${SEEDS:-41}; do
    for arm in "vanilla --arm=vanilla" "projected --arm=projected" "random --arm=projected --control=random"; do
      $python train.py --preset=embedded --steps=40 --seed="$seed" --project-at=update "--v-hack=$out/v_pairs.safetensors" \
        "--out=$out/onpolicy/${arm%% *}-s$seed" ${arm#* } "$@"
    done
  done
  $python analyze.py "$out/onpolicy"
}

job=${1:-}
shift || true
case $job in
  demo)
    setup
    out=out/demo/$(date +%Y%m%d-%H%M%S)
    .venv/bin/python train.py --arm=projected --steps=20 "--out=$out" "$@"
    .venv/bin/python analyze.py "$out"
    ;;
  phases)
    setup
    phases out/phases/"$(date +%Y%m%d-%H%M%S)" "$@"
    ;;
  setup)
    setup
    ;;
  test)
    setup
    .venv/bin/python -m pytest -q -n 2 tests "$@"
    ;;
  *)
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
