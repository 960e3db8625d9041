<?php

/**
 * Deletes the plugin from the site of the folder PMP_SITE, and fails when something of it stays.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

$plugin = 'pmp-analytics/pmp-analytics.php';
update_option('pmp_analytics', ['api_key' => 'k3y']);
add_user_meta(1, 'pmp_enrolled_7', '1', true);
set_transient('pmp_asked_erase', ['ids' => []], HOUR_IN_SECONDS);
set_transient('pmp_erasure_1', '1', HOUR_IN_SECONDS);
set_transient('pmp_report_1', ['text' => '{}', 'at' => 0.0], HOUR_IN_SECONDS);
set_transient('pmp_check_1', 'a', HOUR_IN_SECONDS);
set_transient('pmp_found_1', [], HOUR_IN_SECONDS);
PMP_Analytics_Plugin::instance()->track_user_action('anything');
deactivate_plugins($plugin);
uninstall_plugin($plugin);

$left = array_merge(
    $wpdb->get_col("SHOW TABLES LIKE '%pmp%'"),
    $wpdb->get_col("SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE '%pmp%'"),
    $wpdb->get_col("SELECT option_name FROM {$wpdb->options} WHERE option_name = 'cron' AND option_value LIKE '%pmp%'"),
    $wpdb->get_col("SELECT meta_key FROM {$wpdb->usermeta} WHERE meta_key LIKE '%pmp%'"),
);
if ($left !== []) {
    fwrite(STDERR, 'not removed: ' . implode(', ', $left) . PHP_EOL);
    exit(1);
}
