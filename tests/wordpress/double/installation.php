<?php

/**
 * The class by which plugins recognise WooCommerce, and the role and the capability that its installation adds.
 */

declare(strict_types=1);

final class WooCommerce
{
    public static function install(): void
    {
        add_role('shop_manager', 'Shop manager', ['read' => true]);
        foreach (['administrator', 'shop_manager'] as $role) {
            get_role($role)->add_cap('view_woocommerce_reports');
        }
    }
}
