<?php

/**
 * Installs the site of the folder PMP_SITE, with the plugin and the double of WooCommerce.
 */

declare(strict_types=1);

define('WP_INSTALLING', true);
$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

add_filter('pre_wp_mail', '__return_true');
add_filter('pre_http_request', static fn (): WP_Error => new WP_Error('offline', 'A test site stays at home.'));
wp_install('Shop', 'admin', 'admin@shop.example', true, '', 'admin');
update_option('permalink_structure', '/%postname%/');

foreach (['woocommerce/woocommerce.php', 'pmp-analytics/pmp-analytics.php'] as $plugin) {
    $result = activate_plugin($plugin);
    if (is_wp_error($result)) {
        fwrite(STDERR, $result->get_error_message() . PHP_EOL);
        exit(1);
    }
}
