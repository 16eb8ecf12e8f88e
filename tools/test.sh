#!/usr/bin/env bash
# Runs every test of both modules with the race detector and ends with a line that counts them.
set -euo pipefail
cd "$(dirname "$0")/.."
# Containers and end-to-end tests share one machine: packages that run real containers go one at
# a time, all others in parallel.
exec .cache/tools/gotestsum --format "${TEST_FORMAT:-pkgname-and-test-fails}" \
  --format-hide-empty-pkg -- -race -timeout "${TEST_TIMEOUT:-20m}" "$@" ./... ./proto/...
