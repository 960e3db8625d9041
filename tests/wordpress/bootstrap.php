<?php

/**
 * Loads the real WordPress of the folder PMP_SITE, with a clock in the plugin that tests can move.
 */

declare(strict_types=1);

use PMP\Analytics\Tests\MovedClock;

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';
$_SERVER['REMOTE_ADDR'] = '203.0.113.77';
$_SERVER['HTTP_USER_AGENT'] = 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0';
$_SERVER['REQUEST_METHOD'] = 'GET';
$_SERVER['REQUEST_URI'] = '/';

define('WP_CLI', true);
define('PMP_ANALYTICS_GATEWAY_URL', 'https://mesh.example');
define('PMP_ANALYTICS_API_KEY', 'the-shops-key');
define('PMP_ANALYTICS_JWT_SECRET', 'the-shared-secret');

spl_autoload_register(static function (string $class): void {
    $file = __DIR__ . '/phpunit/' . str_replace(['PMP\\Analytics\\Tests\\', '\\'], ['', '/'], $class) . '.php';
    if (str_starts_with($class, 'PMP\\Analytics\\Tests\\') && is_file($file)) {
        require $file;
    }
});

// WordPress takes hooks from before it is there.
$GLOBALS['wp_filter']['plugins_loaded'][0]['pmp_tests'] = [
    'accepted_args' => 0,
    'function' => static function (): void {
        $plugin = new PMP_Analytics_Plugin(null, null, null, MovedClock::the_one());
        (new ReflectionProperty(PMP_Analytics_Plugin::class, 'instance'))->setValue(null, $plugin);
    },
];

require getenv('PMP_SITE') . '/wp-load.php';
require_once ABSPATH . 'wp-admin/includes/admin.php';

// PHPUnit has output buffers of its own.
remove_action('shutdown', 'wp_ob_end_flush_all', 1);
