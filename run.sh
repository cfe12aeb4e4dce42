#!/usr/bin/env bash
# Sets everything up on a fresh machine (a virtual environment in .venv) and runs one of these:
#   ./run.sh demo      vanilla and projected on the embedded model, the same draws; then their curves in one
#                      picture, a sentence each, and every rollout in one page
#   ./run.sh phases    all of it on the embedded model: pools, v_hack, Phases 1 and 2, 40 on-policy steps of
#                      vanilla, projected, random
#   ./run.sh test      the tests
#   ./run.sh setup     only the virtual environment
# Further arguments go to train.py (demo: to both runs; phases: to the on-policy runs) or pytest.
# SEEDS: seeds of the on-policy runs of phases (41). PYTHON names another interpreter (3.11 or newer),
# TORCH_INDEX a package index for torch: https://download.pytorch.org/whl/cpu where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")"

setup() {
  local wanted; wanted=$(cksum requirements.txt)
  [[ -f .venv/ready && $(<.venv/ready) == "$wanted" ]] && return
  echo "setting up .venv (once): a virtual environment, torch, then the rest of requirements.txt;" \
    "this takes some minutes"
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -c '
import sys
sys.version_info >= (3, 11) or sys.exit("hackward needs Python 3.11 or newer")
'
  # torch first, so that a build chosen by TORCH_INDEX (CPU-only: gigabytes less) is what the rest takes.
  local torch; torch=$(grep '^torch==' requirements.txt)
  echo "installing $torch from ${TORCH_INDEX:-PyPI}" \
    "(without a GPU, TORCH_INDEX=https://download.pytorch.org/whl/cpu is gigabytes smaller)"
  .venv/bin/python -m pip install --progress-bar=on --disable-pip-version-check \
    ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "$torch"
  echo "installing the rest of requirements.txt"
  .venv/bin/python -m pip install --progress-bar=on --disable-pip-version-check -r requirements.txt
  echo "$wanted" >.venv/ready
  echo "ready; for commands of your own: source .venv/bin/activate"
}

demo() { # OUT, flags of both runs
  local out=$1 python=.venv/bin/python arm; shift
  for arm in vanilla projected; do
    echo "== $arm, on the embedded model (16 steps, 5 to 10 seconds each on two idle cores; where others" \
      "use them too, try OMP_NUM_THREADS=1)"
    $python train.py --preset=embedded --arm=$arm --project-at=update --steps=16 --eval-samples=0 \
      "--out=$out/$arm" "$@"
  done
  echo "== what they did"
  $python analyze.py "$out" --brief
  echo "open $out/report/report.html in a browser and press 'Look at the hacks': a rollout that you open" \
    "stands beside the same draw of the other arm"
}

phases() { # OUT, flags of the on-policy runs
  local out=$1 python=.venv/bin/python; shift
  $python probe_distill.py --model=embedded --base-only --rollouts=320 --max-new-tokens=200 --temperature=1 \
    "--out=$out/probe"
  $python extract_vhack.py --model=embedded "--out=$out/v_pairs.safetensors"
  $python extract_vhack.py --model=embedded --pool=data/embedded/teacher_pool "--out=$out/v_pool.safetensors"
  for v in v_pairs v_pool; do
    for phase in nll grpo; do
      $python probe_distill.py --model=embedded --loss-mode=$phase "--v-hack=$out/$v.safetensors" \
        "--out=$out/probe"
    done
  done
  $python analyze.py "$out/probe"
  for seed in ${SEEDS:-41}; do
    for arm in "vanilla --arm=vanilla" "projected --arm=projected" \
      "random --arm=projected --control=random"; do
      $python train.py --preset=embedded --steps=40 --seed="$seed" --project-at=update \
        "--v-hack=$out/v_pairs.safetensors" "--out=$out/onpolicy/${arm%% *}-s$seed" ${arm#* } "$@"
    done
  done
  $python analyze.py "$out/onpolicy"
}

job=${1:-}
shift || true
case $job in
  demo)
    setup
    demo out/demo/"$(date +%Y%m%d-%H%M%S)" "$@"
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
    .venv/bin/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder tests "$@"
    ;;
  *)
    sed -n '2,11s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
