<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Registerable;

/**
 * Marks the page that thanks for an order with the id under which the mesh reports the sale to advertising systems, so that the
 * site's own pixel can report it under the same id, and both count once.
 */
final class OrderPage implements Registerable
{
    public function register(): void
    {
        Hook::action('wp_footer', [$this, 'mark']);
    }

    public function mark(): void
    {
        // The classic page and the block's have this in their address.
        $number = Clean::number(get_query_var('order-received'));
        if ($number > 0) {
            printf('<div hidden data-pmp-order-event="order-%d"></div>' . "\n", $number);
        }
    }
}
