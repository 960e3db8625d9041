# Installs the shop of development at its first start: WooCommerce, the theme, and the plugin, which wp-config.php connects to the mesh.
set -eu
export HOME=/tmp
if wp core is-installed; then exit 0; fi
wp core install --url=http://localhost:8080 --title=Shop --admin_user=admin --admin_password=admin --admin_email=admin@shop.example --skip-email
wp rewrite structure '/%postname%/'
wp plugin install woocommerce --activate
wp theme install understrap
wp theme activate understrap-child
plugin=wp-content/plugins/pmp-analytics
mkdir -p "$plugin"
ln -s /mesh/pmp-analytics/* "$plugin"
ln -s /mesh/dashboard "$plugin/dashboard"
wp plugin activate pmp-analytics
