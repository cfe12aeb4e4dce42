#!/usr/bin/env bash
# Sets everything up on a fresh machine (a virtual environment in .venv) and runs one of two things:
#   ./run.sh demo    the main job with its defaults, then the tables and pictures of what it did
#   ./run.sh test    the tests
# Further arguments go to train.py or pytest. PYTHON names another interpreter (3.11 or newer).
set -euo pipefail
cd "$(dirname "$0")"

setup() {
  local wanted; wanted=$(cksum requirements.txt)
  [[ -f .venv/ready && $(<.venv/ready) == "$wanted" ]] && return
  [[ -x .venv/bin/python ]] || "${PYTHON:-python3}" -m venv .venv
  .venv/bin/python -c 'import sys; sys.version_info >= (3, 11) or sys.exit("hackward needs Python 3.11 or newer")'
  # torch first: without a GPU its CPU build saves gigabytes, and PyPI has none for Linux, so ask for it where it lies.
  local torch; torch=$(grep '^torch==' requirements.txt)
  if ! command -v nvidia-smi >/dev/null && [[ $(uname) == Linux ]]; then
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --timeout 15 --retries 0 \
      --index-url https://download.pytorch.org/whl/cpu "$torch" 2>/dev/null || true
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check "$torch"
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
    sed -n '2,6s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
