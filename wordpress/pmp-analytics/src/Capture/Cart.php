<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP_Analytics_Plugin;
use PMP\Analytics\Registerable;

/**
 * Products added to the cart, and coupons: tracked on the server, independent of content blockers.
 */
final class Cart implements Registerable
{
    public function __construct(private readonly PMP_Analytics_Plugin $plugin)
    {
    }

    public function register(): void
    {
        Hook::action('woocommerce_add_to_cart', [$this, 'added'], 20, 4);
        Hook::action('woocommerce_applied_coupon', [$this, 'coupon_applied'], 20);
    }

    public function added(mixed $item, mixed $product_id = 0, mixed $quantity = 1, mixed $variation_id = 0): void
    {
        $product = Clean::number($variation_id) ?: Clean::number($product_id);
        if ($product > 0 && is_numeric($quantity)) {
            $this->track('add_to_cart', ['product_id' => (string) $product, 'quantity' => (float) $quantity]);
        }
    }

    public function coupon_applied(mixed $code): void
    {
        $this->track('coupon_applied', ['coupon' => $code]);
    }

    /**
     * @param array<string, mixed> $metadata
     */
    private function track(string $action, array $metadata): void
    {
        if (Consent::is_given(Visitor::current())) {
            $this->plugin->track_user_action($action, ['metadata' => $metadata]);
        }
    }
}
