#!/usr/bin/env bash
# Every reading that wants a GPU, one after the other, about ten minutes on a fast one:
#
#     bash benchmarks/gpu.sh [FOLDER [PHOTOS]]
#
# FOLDER (`benchmarks/results` if left out) gets one file per script, with date, device and command; PHOTOS is a folder of photos to train
# on. What fails or takes too long says so in its file and does not stop the rest; the exit status is the number of those.
set -uo pipefail
cd "$(dirname "$0")/.."
to=${1:-benchmarks/results} photos=${2:+--photos $2} failed=0
mkdir -p "$to"
python -c 'import torch; exit(not torch.cuda.is_available())' || { echo 'there is no GPU here'; exit 1; }

read_() { # NAME SECONDS SCRIPT [OPTIONS]
  local file="$to/$1_cuda.md" limit=$2 status=0; shift 2
  printf '# %s\n\n- date: %s\n- device: %s\n- command: `python %s`\n\n' "$1" "$(date +%F)" "$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1)" "$*" >"$file"
  timeout "$limit" python -W ignore "$@" >>"$file" 2>"$file.errors" || status=$?
  if [ $status -ne 0 ]; then
    failed=$((failed+1))
    printf '\nstopped with status %s; the last lines it wrote:\n\n```\n%s\n```\n' $status "$(tail -3 "$file.errors")" >>"$file"
  fi
  rm -f "$file.errors"
  printf '%s: status %s, %s s\n' "$(basename "$file")" $status $SECONDS
}

SECONDS=0
read_ training 150 benchmarks/training.py --bs 16 --rounds 3 $photos
read_ training_profile 60 benchmarks/training.py --bs 16 --profile $photos
read_ feature_loss 90 benchmarks/feature_loss.py --rounds 5
read_ generators 150 benchmarks/generators.py --rounds 3 --bs 8
read_ tiles 90 benchmarks/tiles.py --megapixels 1 12 48
[ -f benchmarks/style.py ] && read_ style 60 benchmarks/style.py
exit $failed
