#!/bin/bash
# The entry point of MySQL's image on MariaDB: makes the data directory, in which the scripts of /docker-entrypoint-initdb.d then run.
set -euo pipefail
docker_process_sql() { mariadb; }

if [[ ! -e /var/lib/mysql/mysql ]]; then
  chown mysql: /var/lib/mysql
  mariadb-install-db --user=mysql --auth-root-authentication-method=normal --skip-test-db > /dev/null
  mariadbd --user=mysql --skip-networking &
  until mariadb-admin --silent ping; do
    kill -0 $! # fails once the server has ended
    sleep 0.2
  done
  for script in /docker-entrypoint-initdb.d/*.sh; do
    # shellcheck source=/dev/null
    . "$script"
  done
  mariadb-admin shutdown
  wait
fi
exec mariadbd --user=mysql --bind-address=0.0.0.0
