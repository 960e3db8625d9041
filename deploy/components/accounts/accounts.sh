# An account for each service, which has its own database and adds to that of persons' keys: by gdpr's alone they are
# destroyed, and by ingestion's taken away when they are too old. A file in $ACCOUNTS is named as its service and holds a
# password of letters and digits. The image of MySQL reads this when it makes its data directory; for another server:
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
    # An underscore would stand for any letter.
    echo "GRANT $keys ON \`subject\\_keys\`.* TO '$service'@'%';"
  done
}
if command -v docker_process_sql > /dev/null; then accounts | docker_process_sql; else accounts; fi
