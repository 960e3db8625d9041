<?php

declare(strict_types=1);

namespace PMP\Analytics\Reports;

/**
 * Who may see the shop's figures.
 */
final class Viewer
{
    /**
     * WooCommerce's own capability for reports; without WooCommerce, that of administrators.
     */
    public static function capability(): string
    {
        return class_exists('WooCommerce') ? 'view_woocommerce_reports' : 'manage_options';
    }

    public static function is_current_user(): bool
    {
        return current_user_can(self::capability());
    }
}
