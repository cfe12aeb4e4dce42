#!/usr/bin/env bash
# Sets everything up on a fresh machine (a virtual environment in .venv) and runs one of two things:
#   ./run.sh demo    the main job with its defaults, then the tables and pictures of what it did
#   ./run.sh test    the tests
# Further arguments go to train.py or pytest. PYTHON names another interpreter (3.11 or newer), TORCH_INDEX a package
# index for torch, e.g. https://download.pytorch.org/whl/cpu where there is no GPU.
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

job=${1:-}
shift || true
case $job in
  demo)
    setup
    out=out/demo/$(date +%Y%m%d-%H%M%S)
    .venv/bin/python train.py --arm=projected --steps=20 "--out=$out" "$@"
    .venv/bin/python analyze.py "$out"
    ;;
  test)
    setup
    .venv/bin/python -m pytest -q tests "$@"
    ;;
  *)
    sed -n '2,7s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
