# Installs the shop of development, unless it is: WooCommerce, the theme, and the plugin, which wp-config.php connects to the mesh.
set -eu
export HOME=/tmp
plugin=wp-content/plugins/pmp-analytics
if ! wp plugin is-active pmp-analytics 2> /dev/null; then
  wp core is-installed || wp core install --url=http://localhost:8080 --title=Shop --skip-email \
    --admin_user=admin --admin_password=admin --admin_email=admin@shop.example
  wp rewrite structure '/%postname%/'
  wp plugin install woocommerce --activate
  wp theme install understrap
  wp theme activate understrap-child
  mkdir -p "$plugin"
  ln -sf /mesh/pmp-analytics/* "$plugin"
  ln -sfn /mesh/dashboard "$plugin/dashboard"
  wp plugin activate pmp-analytics
fi
touch /tmp/installed
exec sleep infinity
