<?php

/**
 * Delivers what waits in the site of the folder PMP_SITE, as cron does, PMP_LATER seconds from now.
 */

declare(strict_types=1);

$_SERVER['HTTP_HOST'] = 'shop.example';
$_SERVER['SERVER_PROTOCOL'] = 'HTTP/1.1';

// WordPress takes hooks from before it is there.
$GLOBALS['wp_filter']['plugins_loaded'][0]['pmp_tests'] = [
    'accepted_args' => 0,
    'function' => static function (): void {
        $clock = new class extends PMP\Analytics\Clock {
            public function now(): float
            {
                return parent::now() + (float) getenv('PMP_LATER');
            }
        };
        $plugin = new PMP_Analytics_Plugin(null, null, null, $clock);
        (new ReflectionProperty(PMP_Analytics_Plugin::class, 'instance'))->setValue(null, $plugin);
    },
];

require getenv('PMP_SITE') . '/wp-load.php';
do_action(PMP\Analytics\Delivery\Schedule::HOOK);
