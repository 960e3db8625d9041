<?php

/**
 * Plugin Name: PMP Analytics
 * Description: Reports what happens in the shop to the PMP mesh, from the first page view to the refund. No visitor waits for it.
 * Version: 0.1.0
 * Requires at least: 6.1
 * Requires PHP: 8.1
 * WC requires at least: 7.9
 * WC tested up to: 11.0
 * Text Domain: pmp-analytics
 * Domain Path: /languages
 * License: GPL-2.0-or-later
 */

declare(strict_types=1);

defined('ABSPATH') || exit;

define('PMP_ANALYTICS_FILE', __FILE__);

require __DIR__ . '/src/Autoloader.php';
(new PMP\Analytics\Autoloader(__DIR__ . '/src'))->register();

register_activation_hook(__FILE__, [PMP\Analytics\Installer::class, 'activate']);
register_deactivation_hook(__FILE__, [PMP\Analytics\Installer::class, 'deactivate']);
(new PMP\Analytics\Compatibility(__FILE__))->register();

add_action('plugins_loaded', static function (): void {
    PMP_Analytics_Plugin::instance()->init_hooks();
});
