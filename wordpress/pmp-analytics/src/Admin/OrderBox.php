<?php

declare(strict_types=1);

namespace PMP\Analytics\Admin;

use PMP\Analytics\Delivery\Pause;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_API_Client;
use PMP_Event_Queue;
use WC_Order;
use WP_Post;

/**
 * A meta box on the order screen that shows what the mesh has booked, what became of it at the mesh's destinations, and what still
 * waits in the outbox. The mesh is called while the screen is rendered, with a short timeout, and not at all while deliveries are
 * paused.
 */
final class OrderBox implements Registerable
{
    private const ID = 'pmp-analytics-order';

    private const CAPABILITY = 'edit_shop_orders';

    private const SECONDS = 2;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Pause $pause,
        private readonly PMP_API_Client $client,
    ) {
    }

    public function register(): void
    {
        Hook::action('add_meta_boxes', [$this, 'add_box']);
    }

    public function add_box(): void
    {
        if (! function_exists('wc_get_page_screen_id') || ! current_user_can(self::CAPABILITY)) {
            return;
        }
        // The screen depends on whether WooCommerce stores orders in its own tables or as posts.
        add_meta_box(self::ID, __('PMP Analytics', 'pmp-analytics'), [$this, 'show'], wc_get_page_screen_id('shop-order'), 'side');
    }

    /**
     * @param mixed $subject The order, or its post.
     */
    public function show(mixed $subject): void
    {
        $order = $subject instanceof WP_Post ? wc_get_order($subject->ID) : $subject;
        if (! $order instanceof WC_Order) {
            return;
        }
        foreach ([...$this->known($order), ...$this->on_its_way($order)] as $line) {
            echo '<p>' . esc_html($line) . '</p>';
        }
    }

    /**
     * @return list<string> The mesh's state of the order.
     */
    private function known(WC_Order $order): array
    {
        if ($this->pause->is_on()) {
            return [$this->unreachable($this->pause->state()['reason'])];
        }
        $reply = $this->client->call('GET', '/api/v1/purchases/' . $order->get_id(), '', self::SECONDS);
        $purchase = $reply->body['purchase'] ?? null;
        if ($reply->status === 200 && is_array($purchase)) {
            return [...$this->booked($purchase), ...$this->delivered($order)];
        }
        // A proxy's 404 page is not an answer of the mesh.
        if ($reply->status === 404 && is_int($reply->body['code'] ?? null)) {
            return [__('The mesh does not know this order.', 'pmp-analytics')];
        }
        return [$this->unreachable($reply->reason())];
    }

    /**
     * @param array<mixed> $purchase pmp.purchases.v1.RecordedPurchase.
     * @return list<string>
     */
    private function booked(array $purchase): array
    {
        $money = static fn (string $field): string => trim(
            number_format_i18n((float) ($purchase[$field] ?? 0), 2) . ' ' . sanitize_text_field($purchase['currency'] ?? '')
        );
        /* translators: %s: a status such as completed. */
        $lines = [sprintf(__('Booked by the mesh as %s.', 'pmp-analytics'), sanitize_text_field($purchase['payment_status'] ?? ''))];
        /* translators: 1: amount paid, 2: amount refunded. */
        $lines[] = sprintf(__('Paid %1$s, refunded %2$s.', 'pmp-analytics'), $money('paid_amount'), $money('refunded_amount'));
        if (! empty($purchase['is_test']) || ! empty($purchase['is_staff'])) {
            $lines[] = __('Left out of reports: a test or staff order.', 'pmp-analytics');
        }
        return $lines;
    }

    /**
     * @return list<string> What became of the order at each destination of the mesh; nothing if that can't be found out.
     */
    private function delivered(WC_Order $order): array
    {
        $reply = $this->client->call('GET', '/api/v1/deliveries?order_id=' . $order->get_id(), '', self::SECONDS);
        $lines = [];
        foreach ($reply->status === 200 ? (array) ($reply->body['deliveries'] ?? []) : [] as $delivery) {
            if (is_array($delivery)) {
                $lines[] = sprintf(
                    /* translators: 1: a destination, 2: what it is sent such as purchase, 3: a state such as delivered. */
                    __('%1$s, %2$s: %3$s', 'pmp-analytics'),
                    sanitize_text_field($delivery['destination'] ?? ''),
                    sanitize_text_field($delivery['name'] ?? ''),
                    $this->state(sanitize_text_field($delivery['state'] ?? ''), sanitize_text_field($delivery['detail'] ?? '')),
                );
            }
        }
        return $lines;
    }

    private function state(string $state, string $detail): string
    {
        $named = match ($state) {
            'DELIVERY_STATE_DELIVERED' => __('delivered', 'pmp-analytics'),
            'DELIVERY_STATE_PENDING' => __('waiting', 'pmp-analytics'),
            'DELIVERY_STATE_WITHHELD' => __('not sent', 'pmp-analytics'),
            'DELIVERY_STATE_EXPIRED' => __('expired', 'pmp-analytics'),
            'DELIVERY_STATE_DROPPED' => __('dropped', 'pmp-analytics'),
            default => __('failed', 'pmp-analytics'),
        };
        return $detail === '' || $state === 'DELIVERY_STATE_DELIVERED' ? $named : "{$named} ({$detail})";
    }

    /**
     * @return list<string> Reports that wait in the outbox or were refused.
     */
    private function on_its_way(WC_Order $order): array
    {
        $names = ['purchase' => __('The order', 'pmp-analytics'), 'refund' => __('A refund', 'pmp-analytics')];
        $lines = [];
        foreach ($this->queue->about_order($order->get_id()) as $message) {
            $lines[] = $message['status'] === 'waiting'
                /* translators: 1: the order or a refund, 2: a time such as "2 hours". */
                ? sprintf(__('%1$s has been waiting in the outbox for %2$s.', 'pmp-analytics'), $names[$message['kind']], human_time_diff(
                    intdiv((int) $message['created_at'], 1000)
                ))
                /* translators: 1: the order or a refund, 2: the mesh's reason. */
                : sprintf(__('%1$s was refused by the mesh: %2$s', 'pmp-analytics'), $names[$message['kind']], $message['reason']);
        }
        return $lines;
    }

    private function unreachable(string $reason): string
    {
        /* translators: %s: why the mesh can't be reached. */
        return sprintf(__('The mesh could not be reached: %s', 'pmp-analytics'), $reason);
    }
}
