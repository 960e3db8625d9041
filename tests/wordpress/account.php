<?php

/**
 * Writes PMP_VALUE to the user meta PMP_KEY of the user PMP_CUSTOMER in the site of the folder PMP_SITE, as another plugin would.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

require getenv('PMP_SITE') . '/wp-load.php';

update_user_meta((int) getenv('PMP_CUSTOMER'), (string) getenv('PMP_KEY'), (string) getenv('PMP_VALUE'));
