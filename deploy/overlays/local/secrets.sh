#!/bin/sh
# Creates the namespace and its secrets; existing ones stay as they are.
set -eu
cd "$(dirname "$0")"

hex() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
missing() { ! kubectl --namespace pmp get secret "$1" >/dev/null 2>&1; }
create() { kubectl --namespace pmp create secret generic "$@"; }

kubectl apply --filename ../../components/isolation/namespace.yaml
if missing mesh-secrets; then
  create mesh-secrets \
    --from-literal=PMP_MESH_TOKEN="$(hex)" \
    --from-literal=PMP_VAULT_KEY="$(head -c 32 /dev/urandom | base64)" \
    --from-literal=PMP_KEY_ENCRYPTION_KEYS="$(head -c 32 /dev/urandom | base64)" \
    --from-literal=PMP_REDIS_URL=redis://redis:6379
fi
if missing mysql-secrets; then
  create mysql-secrets --from-literal=MYSQL_ROOT_PASSWORD="$(hex)"
fi
if missing mysql-accounts; then
  # An account for each service, known to its pods and MySQL only.
  set --
  for folder in ../../services/*/; do
    service=$(basename "$folder")
    password=$(hex)
    create "$service-secrets" --from-literal=PMP_DATABASE_URL="mysql+aiomysql://$service:$password@mysql:3306/{service}"
    set -- "$@" --from-literal="$service=$password"
  done
  create mysql-accounts "$@"
fi
if missing gateway-secrets; then
  create gateway-secrets \
    --from-literal=PMP_API_KEYS="[\"$(hex)\"]" \
    --from-literal=PMP_BROWSER_API_KEYS="[\"$(hex)\"]" \
    --from-literal=PMP_JWT_SECRETS="[\"$(hex)\"]"
fi
