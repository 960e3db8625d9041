<?php

declare(strict_types=1);

namespace PMP\Analytics\Tests;

use PMP\Analytics\Admin\OrderBox;
use PMP\Analytics\Delivery\Pause;
use PMP_API_Client;
use WC_Order;
use WP_Post;

/**
 * What the screen of an order says of the mesh.
 */
final class OrderBoxTest extends SiteTestCase
{
    private const SCREEN = 'woocommerce_page_wc-orders';

    private OrderBox $box;

    private WC_Order $order;

    protected function setUp(): void
    {
        parent::setUp();
        wp_set_current_user(1);
        wp_get_current_user()->add_cap('edit_shop_orders');
        $this->box = new OrderBox($this->queue, new Pause($this->clock), new PMP_API_Client(null, $this->clock));
        $this->order = new WC_Order();
        $this->order->set_props(['status' => 'completed', 'total' => '199.00', 'billing' => ['email' => 'guest@example.org']]);
        $this->order->save();
    }

    public function test_the_box_stands_on_the_screen_of_orders_wherever_they_are_stored(): void
    {
        do_action('add_meta_boxes', self::SCREEN, $this->order);
        self::assertContains('pmp-analytics-order', $this->boxes());

        self::assertSame($this->shown(), $this->shown(new WP_Post((object) ['ID' => $this->order->get_id()])));
    }

    public function test_who_may_not_edit_orders_sees_no_box(): void
    {
        unset($GLOBALS['wp_meta_boxes'][self::SCREEN]);
        wp_set_current_user($this->customer());
        $this->box->add_box();

        self::assertSame([], $this->boxes());
    }

    public function test_a_booked_order_shows_what_was_paid_and_paid_back(): void
    {
        $this->know(['payment_status' => 'partially_refunded', 'currency' => 'EUR', 'paid_amount' => 1199, 'refunded_amount' => 10.5]);

        self::assertSame(
            '<p>Booked by the mesh as partially_refunded.</p><p>Paid 1,199.00 EUR, refunded 10.50 EUR.</p>',
            $this->shown(),
        );
        self::assertLessThanOrEqual(2, $this->mesh->calls[0]['arguments']['timeout'], 'nobody wants to wait for an order');
    }

    public function test_a_booked_order_shows_what_became_of_it_at_each_destination(): void
    {
        $this->know(['payment_status' => 'completed', 'currency' => 'EUR', 'paid_amount' => 1]);
        $this->mesh->known['/api/v1/deliveries'] = ['deliveries' => [
            ['destination' => 'google', 'name' => 'purchase', 'state' => 'DELIVERY_STATE_DELIVERED', 'detail' => 'HTTP 204'],
            ['destination' => 'ads', 'name' => 'Purchase', 'state' => 'DELIVERY_STATE_WITHHELD', 'detail' => 'no consent'],
            ['destination' => 'crm', 'name' => 'order.paid', 'state' => 'DELIVERY_STATE_DEAD', 'detail' => '<b>HTTP 400'],
        ]];

        self::assertStringEndsWith(
            '<p>google, purchase: delivered</p><p>ads, Purchase: not sent (no consent)</p><p>crm, order.paid: failed (HTTP 400)</p>',
            $this->shown(),
        );
        self::assertSame("order_id={$this->order->get_id()}", $this->mesh->calls[1]['query']);
    }

    public function test_an_order_that_does_not_count_says_so(): void
    {
        $this->know(['payment_status' => 'completed', 'currency' => 'EUR', 'paid_amount' => 1, 'is_staff' => true]);

        self::assertStringContainsString('Left out of reports', $this->shown());
    }

    public function test_an_order_that_waits_says_for_how_long(): void
    {
        $this->plugin->handle_woocommerce_purchase($this->order->get_id());

        $shown = $this->shown();

        self::assertStringContainsString('The mesh does not know this order.</p><p>The order has been waiting in the outbox for ', $shown);
        self::assertSame(1, substr_count($shown, 'waiting'));
    }

    public function test_the_messages_of_another_order_are_not_this_ones(): void
    {
        $number = $this->order->get_id();
        $other = new WC_Order($number * 10 + 1);
        $other->set_props(['status' => 'completed', 'billing' => ['email' => 'other@example.org']]);
        $other->save();
        $this->plugin->handle_woocommerce_purchase($other->get_id());

        self::assertStringNotContainsString('waited', $this->shown());
    }

    public function test_a_refused_order_says_why_and_safely(): void
    {
        $this->order->set_props(['billing' => ['email' => 'refuse-me@example.org']]);
        $this->order->save();
        $this->plugin->handle_woocommerce_purchase($this->order->get_id());
        $this->drain();

        self::assertStringContainsString('The order was refused by the mesh: HTTP 400 invalid email: odd', $this->shown());

        $this->know(['payment_status' => '<script>alert(1)</script>', 'currency' => '<b>']);
        self::assertStringNotContainsString('<script>', $this->shown());
    }

    public function test_a_mesh_that_cannot_be_reached_is_distinguished_from_an_unknown_order(): void
    {
        $this->mesh->mood = 'down';
        self::assertSame('<p>The mesh could not be reached: Connection refused</p>', $this->shown());

        $this->mesh->mood = 'forbidden page';
        self::assertSame('<p>The mesh could not be reached: HTTP 403</p>', $this->shown());
    }

    public function test_a_mesh_that_is_known_to_be_away_is_not_asked(): void
    {
        $this->mesh->mood = 'hanging';
        $this->add_events(['a']);
        $this->drain();
        $calls = count($this->mesh->calls);

        self::assertSame('<p>The mesh could not be reached: Operation timed out</p>', $this->shown());
        self::assertCount($calls, $this->mesh->calls);
    }

    /**
     * @param array<string, mixed> $purchase
     */
    private function know(array $purchase): void
    {
        $this->mesh->known["/api/v1/purchases/{$this->order->get_id()}"] = ['purchase' => $purchase];
    }

    private function shown(mixed $subject = null): string
    {
        ob_start();
        $this->box->show($subject ?? $this->order);
        return (string) ob_get_clean();
    }

    /**
     * @return list<string>
     */
    private function boxes(): array
    {
        return array_keys($GLOBALS['wp_meta_boxes'][self::SCREEN]['side']['default'] ?? []);
    }
}
