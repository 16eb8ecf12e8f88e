#!/usr/bin/env bash
# Draws docs/terminal.svg from a real run: a local network, a rendering job in a terminal of tmux,
# and what its screen shows at the end.
set -euo pipefail
cd "$(dirname "$0")/.."
work=$(mktemp -d "${TMPDIR:-/tmp}/ucn-picture-XXXXXX")
chmod 711 "$work"
export UCN_DATA=$work/data
socket=$work/tmux
finish() {
  tmux -S "$socket" kill-server 2>/dev/null || true
  bin/ucn down --wipe >/dev/null || true
  rm -rf "$work"
}
trap finish EXIT
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$work/render" ./examples/render
go run ./examples/render/pack -program "$work/render" -out "$work/render.tar"
bin/ucn up --detach --listen-api 127.0.0.1:0 --listen-rest 127.0.0.1:0 --listen-bus 127.0.0.1:0 >/dev/null
image=$(bin/ucn image push "$work/render.tar" | tail -n 1)
cat >"$work/show.sh" <<SHOW
cd $PWD
printf '\033[1m$ ucn job run %s… --name render --output /out/picture.png:render.png\033[0m\n' '${image:0:12}'
bin/ucn job run $image --name render --cpu 1 --memory 128MiB --output /out/picture.png:$work/render.png \
  -- -width 960 -height 540 -samples 16 2>&1
tmux -S $socket wait-for -S done
exec cat
SHOW
tmux -S "$socket" new-session -d -x 104 -y 34 "bash $work/show.sh"
tmux -S "$socket" set-option -g status off
tmux -S "$socket" wait-for done
tmux -S "$socket" capture-pane -e -p | sed "s|$work/||g" |
  go run tools/termsvg.go -title 'a job on the United Container Network' >docs/terminal.svg
echo "docs/terminal.svg is drawn"
