#!/usr/bin/env bash
# Installs what the local network and its tests need and this machine lacks, through apt, as root
# or with sudo; where it cannot, it prints the exact command. Safe to run again and again.
set -euo pipefail

# command -> Debian package
needs=(
  podman:podman runc:runc conmon:conmon nft:nftables ip:iproute2 newuidmap:uidmap
  gcc:gcc curl:curl
)
missing=()
for need in "${needs[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "${need%%:*}" >/dev/null || missing+=("${need##*:}")
done
for helper in netavark aardvark-dns catatonit; do
  found=
  for dir in /usr/lib/podman /usr/libexec/podman /usr/bin; do
    [ -x "$dir/$helper" ] && found=1
  done
  [ -n "$found" ] || missing+=("$helper")
done
# gcc needs the C library's headers for the race detector.
[ -e /usr/include/stdlib.h ] || missing+=(libc6-dev)

go version >/dev/null 2>&1 || { echo "setup: Go 1.26 or newer is needed: https://go.dev/dl/" >&2; exit 1; }

[ ${#missing[@]} -eq 0 ] && exit 0

command=(apt-get install -y --no-install-recommends "${missing[@]}")
if ! command -v apt-get >/dev/null; then
  echo "setup: please install: ${missing[*]} (this machine has no apt)" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=(sudo)
  else
    echo "setup: please run as root: apt-get update && ${command[*]}" >&2
    exit 1
  fi
fi
echo "setup: installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
if ! { "${as_root[@]}" apt-get update && "${as_root[@]}" "${command[@]}"; } >"$log" 2>&1; then
  tail -n 20 "$log" >&2
  echo "setup: failed; please run as root: apt-get update && ${command[*]}" >&2
  exit 1
fi
