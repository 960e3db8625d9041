<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP_Analytics_Plugin;
use PMP\Analytics\Registerable;

/**
 * What goes into the cart, and the coupons on it: the server knows, whatever a browser blocks.
 */
final class Cart implements Registerable
{
    public function __construct(private readonly PMP_Analytics_Plugin $plugin)
    {
    }

    public function register(): void
    {
        add_action('woocommerce_add_to_cart', [$this, 'added'], 20, 4);
        add_action('woocommerce_applied_coupon', [$this, 'coupon_applied'], 20);
    }

    public function added(string $item, int|string $product_id, int|float|string $quantity, int|string $variation_id = 0): void
    {
        Guard::attempt(fn () => $this->plugin->track_user_action('add_to_cart', ['metadata' => [
            'product_id' => (string) ((int) $variation_id ?: (int) $product_id),
            'quantity' => (float) $quantity,
        ]]));
    }

    public function coupon_applied(string $code): void
    {
        Guard::attempt(fn () => $this->plugin->track_user_action('coupon_applied', ['metadata' => ['coupon' => $code]]));
    }
}
