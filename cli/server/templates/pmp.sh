#!/bin/sh
# Written by `pmp service install`: pmp as the user of the mesh, with its folder and its settings. Needs root.
set -eu
case "$${1:-}" in
  service | upgrade) exec $program "$$@" ;;
esac
exec systemd-run --quiet --pipe --wait --collect --service-type=exec --uid=pmp --gid=pmp --setenv=PMP_DATA=$data \
  --setenv=PMP_BACKUPS=$backups --property=WorkingDirectory=-"$$PWD" \
  --property=EnvironmentFile=-$settings $program "$$@"
