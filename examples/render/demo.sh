#!/usr/bin/env bash
# The main job of the network, as a user would do it: start a local network, push an image, run a
# job on it under an escrow, save its picture, see the bill and the proof, shut down.
# DEMO_OUT: where the picture goes (default ./render.png). DEMO_KEEP=1 keeps the data folder.
set -euo pipefail
cd "$(dirname "$0")/../.."

ucn=bin/ucn
out=${DEMO_OUT:-$PWD/render.png}
work=$(mktemp -d "${TMPDIR:-/tmp}/ucn-demo-XXXXXX")
chmod 711 "$work" # containers read their inputs as users that own nothing
export UCN_DATA=$work/data

finish() {
  local code=$?
  trap - EXIT INT TERM
  if [ -d "$UCN_DATA" ]; then
    [ "$code" -eq 0 ] || { echo; echo "demo failed; the end of the log:"; tail -n 40 "$UCN_DATA/ucn.log" 2>/dev/null || true; } >&2
    if [ -n "${DEMO_KEEP:-}" ]; then
      "$ucn" down; echo "data kept in $work"
    else
      "$ucn" down --wipe || code=1
    fi
  fi
  [ -n "${DEMO_KEEP:-}" ] || rm -rf "$work"
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

say "1. Build the program and its image (from scratch, static)"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/render" ./examples/render
go run ./examples/render/pack -program "$work/render" -out "$work/render.tar"
ls -l "$work/render.tar" | awk '{print "   image archive of", $5, "bytes"}'

say "2. Start a local network"
"$ucn" up --detach --listen-api 127.0.0.1:0 --listen-rest 127.0.0.1:0 --listen-bus 127.0.0.1:0 |
  sed -n '1,6p'

say "3. What the hosts offer, and what the wallet holds"
"$ucn" market
"$ucn" wallet balance

say "4. Push the image"
image=$("$ucn" image push "$work/render.tar" | tail -n 1)
echo "   $image"

say "5. Run the job under an escrow"
"$ucn" job run "$image" --name render --cpu 1 --memory 128MiB --run-time 10m --max-total 1 \
  --output "/out/picture.png:$out" -- -width 960 -height 540 -samples "${DEMO_SAMPLES:-16}"

say "6. What the wallet holds now"
"$ucn" wallet balance
echo
echo "The picture is in $out"
