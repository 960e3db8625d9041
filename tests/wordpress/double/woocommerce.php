<?php

/**
 * Plugin Name: WooCommerce (double)
 * Description: As much of WooCommerce's documented API as the plugin uses, so that recorded traces of the real one can be played.
 */

declare(strict_types=1);

defined('ABSPATH') || exit;

require __DIR__ . '/installation.php';
require __DIR__ . '/action-scheduler.php';
require __DIR__ . '/orders.php';
require __DIR__ . '/products.php';
require __DIR__ . '/checkout.php';
require __DIR__ . '/features.php';
require __DIR__ . '/forms.php';
require __DIR__ . '/learndash.php';
require __DIR__ . '/wp-cli.php';

register_activation_hook(__FILE__, [WooCommerce::class, 'install']);
(new WC_Checkout_Double())->register();
