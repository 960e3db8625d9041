<?php

declare(strict_types=1);

namespace PMP\Analytics;

use Automattic\WooCommerce\Utilities\FeaturesUtil;

/**
 * Tells WooCommerce that orders are only touched through its CRUD API, and that the block checkout is known; and the WP Consent
 * API that it is asked.
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
