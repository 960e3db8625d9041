<?php

/**
 * Serves a site by PHP's own web server. If its address, PMP_HOME, begins with https, a proxy in front of it spoke TLS.
 */

declare(strict_types=1);

$site = (string) getenv('PMP_SITE');
$file = $site . parse_url((string) $_SERVER['REQUEST_URI'], PHP_URL_PATH);
if (is_file($file) || $file !== "{$site}/" && is_file("{$file}/index.php")) {
    return false;
}
if (str_starts_with((string) getenv('PMP_HOME'), 'https:')) {
    $_SERVER['HTTPS'] = 'on';
}
$_SERVER['SCRIPT_NAME'] = '/index.php';
require "{$site}/index.php";
