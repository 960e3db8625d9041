<?php

declare(strict_types=1);

namespace PMP\Analytics;

use Automattic\WooCommerce\Utilities\FeaturesUtil;

/**
 * Declares to WooCommerce that orders are accessed through its CRUD API only and that the block checkout is supported, and to the
 * WP Consent API that this plugin respects it.
 */
final class Compatibility implements Registerable
{
    public function __construct(private readonly string $plugin_file)
    {
    }

    public function register(): void
    {
        Hook::action('before_woocommerce_init', [$this, 'declare_features']);
        add_filter('wp_consent_api_registered_' . plugin_basename($this->plugin_file), '__return_true');
    }

    public function declare_features(): void
    {
        if (! class_exists(FeaturesUtil::class)) {
            return;
        }
        foreach (['custom_order_tables', 'cart_checkout_blocks'] as $feature) {
            FeaturesUtil::declare_compatibility($feature, $this->plugin_file, true);
        }
    }
}
