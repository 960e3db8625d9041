<?php

/**
 * Adds the customer PMP_CUSTOMER, whose password is the name, to the site of the folder PMP_SITE; prints the id.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';

$name = (string) getenv('PMP_CUSTOMER');
$id = wp_insert_user([
    'user_login' => $name,
    'user_pass' => $name,
    'user_email' => "{$name}@example.org",
    'role' => 'subscriber',
]);
if (is_wp_error($id)) {
    fwrite(STDERR, $id->get_error_message() . PHP_EOL);
    exit(1);
}
echo $id;
