# An account for each service, with its own database and the right to add to the database of persons' keys. Only gdpr's
# destroys keys, and ingestion's deletes expired intake keys. Each file in $ACCOUNTS is named after its service and contains
# a password of letters and digits. The MySQL image runs this when it creates its data directory; for another server:
#   ACCOUNTS=FOLDER sh accounts.sh | mysql --user=root --password
accounts() {
  for file in "${ACCOUNTS:-/etc/accounts}"/*; do
    service=$(basename "$file")
    password=$(cat "$file")
    case $service in
      gdpr) keys="ALL PRIVILEGES" ;;
      ingestion) keys="SELECT, INSERT, DELETE" ;;
      *) keys="SELECT, INSERT" ;;
    esac
    echo "CREATE USER IF NOT EXISTS '$service'@'%' IDENTIFIED BY '$password';"
    echo "ALTER USER '$service'@'%' IDENTIFIED BY '$password';"
    echo "GRANT ALL PRIVILEGES ON \`$service\`.* TO '$service'@'%';"
    # An unescaped underscore would match any character.
    echo "GRANT $keys ON \`subject\\_keys\`.* TO '$service'@'%';"
  done
}
if command -v docker_process_sql > /dev/null; then accounts | docker_process_sql; else accounts; fi
