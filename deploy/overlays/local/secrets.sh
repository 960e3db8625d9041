#!/bin/sh
# Makes the namespace and its secrets; those that are there already stay as they are.
set -eu
cd "$(dirname "$0")"

hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
missing() { ! kubectl --namespace pmp get secret "$1" >/dev/null 2>&1; }
create() { kubectl --namespace pmp create secret generic "$@"; }

kubectl apply --filename ../../components/isolation/namespace.yaml
if missing mesh-secrets; then
  password=$(hex)
  create mysql-secrets --from-literal=MYSQL_ROOT_PASSWORD="$password"
  create mesh-secrets \
    --from-literal=PMP_MESH_TOKEN="$(hex)" \
    --from-literal=PMP_VAULT_KEY="$(head -c 32 /dev/urandom | base64)" \
    --from-literal=PMP_KEY_ENCRYPTION_KEYS="$(head -c 32 /dev/urandom | base64)" \
    --from-literal=PMP_DATABASE_URL="mysql+aiomysql://root:$password@mysql:3306/{service}" \
    --from-literal=PMP_REDIS_URL=redis://redis:6379
fi
if missing gateway-secrets; then
  create gateway-secrets \
    --from-literal=PMP_API_KEYS="[\"$(hex)\"]" \
    --from-literal=PMP_BROWSER_API_KEYS="[\"$(hex)\"]" \
    --from-literal=PMP_JWT_SECRETS="[\"$(hex)\"]"
fi
