<?php

/**
 * Makes the reports that the site of the folder PMP_SITE keeps two hours older.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';

$names = $wpdb->get_col("SELECT option_name FROM {$wpdb->options} WHERE option_name LIKE '\\_transient\\_pmp\\_report\\_%'");
foreach ($names as $name) {
    $kept = get_option($name);
    update_option($name, ['at' => $kept['at'] - 7200] + $kept);
}
echo count($names);
