#!/bin/sh
# Writes deploy/.env, the secrets of development, which docker compose reads; an existing one stays as it is.
set -eu
umask 077
target=${1:-$(dirname "$0")/../.env}

hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
key() { head -c 32 /dev/urandom | base64; }
[ -e "$target" ] && exit 0
cat > "$target" <<ENV
PMP_MESH_TOKEN=$(hex)
PMP_VAULT_KEY=$(key)
PMP_KEY_ENCRYPTION_KEYS=$(key)
PMP_API_KEYS=["$(hex)"]
PMP_BROWSER_API_KEYS=["$(hex)"]
PMP_JWT_SECRETS=["$(hex)"]
PMP_SITE_ERASURE_SECRET=whsec_$(key)
MESH_PASSWORD=$(hex)
WORDPRESS_PASSWORD=$(hex)
MYSQL_ROOT_PASSWORD=$(hex)
ENV
