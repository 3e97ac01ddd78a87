#!/usr/bin/env bash
# What needs a GPU, in at most nine minutes: the tests marked gpu, members at once, each kind of network, and the main
# job. Run it in the repository's root on a machine with one: `PY=.venv/bin/python benchmarks/gpu.sh`; the tables go to
# docs/speed.md.
# OUT (./gpu by default) gets the output of each part.
set -u
PY=${PY:-python} OUT=${OUT:-gpu}
mkdir -p "$OUT"
failed=0

part() { # name, seconds at most, command
    local name=$1 most=$2 begun=$SECONDS
    shift 2
    echo "== $name"
    timeout "$most" "$@" >"$OUT/$name.txt" 2>&1
    local code=$?
    tail -n 25 "$OUT/$name.txt"
    echo "== $name: exit $code after $((SECONDS - begun)) s"
    [ $code -eq 0 ] || failed=1
}

"$PY" -c 'import sys, torch; sys.exit("no GPU that PyTorch can use" if not torch.cuda.is_available() else 0)' || exit 1
part tests 180 "$PY" -m pytest -q -n0 -m gpu
part members 150 "$PY" benchmarks/sweep_speed.py --device cuda --members 1 8 32 256 --rounds 1 --seconds 2
part networks 90 "$PY" benchmarks/networks.py --device cuda --threads 1 --rounds 3 --seconds 1
part main 120 "$PY" -m awr_exp.main device=cuda logger=jsonl "hydra.run.dir=$OUT/main"
exit $failed
