<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use DateTimeInterface;
use PMP\Analytics\Clock;
use PMP\Analytics\Hook;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\PurchasePayload;
use PMP\Analytics\Queue\Kind;
use PMP\Analytics\Queue\Message;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WC_Order;
use WC_Order_Refund;

/**
 * Orders and refunds, tracked by their changes and never by page views: the classic and block checkouts, staff, REST and payment
 * gateways all pass here, and a reloaded thank-you page does not.
 *
 * The complete order is reported whenever it has changed, and only then: the mesh counts the newest report. Trashed, deleted and
 * cancelled orders are reported, too, and so are deleted refunds.
 *
 * Other plugins fire WooCommerce's hooks too, not always with the documented arguments: hence the wide types.
 */
final class Orders implements Registerable
{
    public const REPORT_AGAIN = 'pmp_analytics_tell_order';

    /** Orders that are not placed yet. */
    private const UNPLACED = ['checkout-draft', 'auto-draft', 'draft', 'new'];

    /** Seconds during which a backfill takes an order or refund for one that happens now: a request may be about to report it. */
    private const PRESENT = 3600;

    /** @var array<int, true> Orders that may have changed in this request. */
    private array $touched = [];

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly OrderReader $reader,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('woocommerce_checkout_create_order', [$this, 'remember_session'], 20);
        Hook::action('woocommerce_store_api_checkout_update_order_meta', [$this, 'remember_session'], 20);
        Hook::action('woocommerce_order_status_changed', [$this, 'status_changed'], 20, 4);
        Hook::action('woocommerce_order_refunded', [$this, 'refunded'], 20);
        foreach (['new', 'update', 'trash', 'untrash'] as $what) {
            Hook::action("woocommerce_{$what}_order", [$this, 'touched'], 20);
        }
        Hook::action('woocommerce_refund_deleted', [$this, 'refund_deleted'], 20, 2);
        // Only wp-admin fires the above. The data store fires nothing with order tables; before WooCommerce 8.1, only REST does.
        Hook::filter('woocommerce_pre_delete_order_refund', [$this, 'refund_deleting'], 20, 2);
        Hook::action('woocommerce_rest_delete_shop_order_refund_object', [$this, 'refund_removed'], 20);
        Hook::action('woocommerce_before_delete_order', [$this, 'deleted'], 20, 2);
        // If orders are posts, wp-admin's lists trash and delete them without WooCommerce's hooks.
        Hook::action('trashed_post', [$this, 'post_touched'], 20);
        Hook::action('untrashed_post', [$this, 'post_touched'], 20);
        Hook::action('before_delete_post', [$this, 'post_deleted'], 20);
        Hook::action('shutdown', [$this, 'report_touched'], 0);
        Hook::action(self::REPORT_AGAIN, [$this, 'report_late'], 10);
        foreach (['subscription', 'renewal_order', 'resubscribe_order'] as $copy) {
            Hook::filter("wc_subscriptions_{$copy}_data", [$this->reader, 'without_ours'], 20);
        }
    }

    public function remember_session(mixed $order): void
    {
        if (! $order instanceof WC_Order) {
            return;
        }
        $this->reader->remember($order, Visitor::current());
        if ($order->get_id() > 0) {
            // The block checkout's order is in the database already; the classic checkout saves its order later.
            $order->save_meta_data();
        }
    }

    /**
     * Reported immediately: the request may be nothing but a payment gateway's callback.
     */
    public function status_changed(mixed $order_id, mixed $from = '', mixed $to = '', mixed $order = null): void
    {
        $this->report($order instanceof WC_Order ? $order : $this->order($order_id));
    }

    public function refunded(mixed $order_id): void
    {
        $this->report($this->order($order_id));
    }

    /**
     * An order is saved many times in a request, and new ones have no total yet. Its final state is reported on shutdown.
     */
    public function touched(mixed $order_id): void
    {
        if (is_numeric($order_id)) {
            $this->touched[(int) $order_id] = true;
        }
    }

    public function refund_deleted(mixed $refund_id, mixed $order_id = 0): void
    {
        $this->touched($order_id);
    }

    /**
     * @param mixed $answer Null, or another plugin's result, which prevents the deletion.
     */
    public function refund_deleting(mixed $answer, mixed $refund = null): mixed
    {
        $this->refund_removed($refund);
        return $answer;
    }

    public function refund_removed(mixed $refund): void
    {
        if ($refund instanceof WC_Order_Refund) {
            $this->touched($refund->get_parent_id());
        }
    }

    public function deleted(mixed $order_id, mixed $order = null): void
    {
        if ($order instanceof WC_Order) {
            $this->report_deleted($order);
        }
    }

    public function post_touched(mixed $post_id): void
    {
        if (get_post_type(Clean::number($post_id)) === 'shop_order') {
            $this->touched($post_id);
        }
    }

    public function post_deleted(mixed $post_id): void
    {
        match (get_post_type(Clean::number($post_id))) {
            'shop_order' => $this->deleted($post_id, $this->order($post_id)),
            'shop_order_refund' => $this->touched(wp_get_post_parent_id(Clean::number($post_id))),
            default => null,
        };
    }

    public function report_touched(): void
    {
        $touched = array_keys($this->touched);
        $this->touched = [];
        foreach ($touched as $order_id) {
            Guard::attempt(fn () => $this->report($this->stored_order($order_id)));
        }
    }

    /**
     * Whether it is an order, and no draft of one.
     */
    public static function is_placed(WC_Order $order): bool
    {
        return $order->get_type() === 'shop_order' && $order->get_id() > 0 && ! in_array($order->get_status(), self::UNPLACED, true);
    }

    public function report_late(mixed $order_id): void
    {
        $this->report($this->order($order_id), true);
    }

    /**
     * @param bool $is_late       Whether to report the order without waiting for missing amounts.
     * @param bool $is_backfilled Whether the order is reported because it exists, and not because it changed.
     */
    public function report(?WC_Order $order, bool $is_late = false, bool $is_backfilled = false): void
    {
        if ($order === null || ! self::is_placed($order)) {
            return;
        }
        $before = Reported::of($order);
        if ($order->get_status() === 'trash' && ! $before->is_known()) {
            return;
        }
        // Refunds first: otherwise the status refunded would be booked without their references and dates.
        $refunds = $this->reader->refunds($order);
        $reported = $this->report_deleted_refunds($order, $refunds, $before);
        foreach ($refunds as $refund) {
            $reported = $this->report_refund($order, $refund, $reported, $is_late, $is_backfilled);
        }
        $reported = $this->report_state($order, $reported, $order->get_status() === 'trash' ? 'trashed' : '', $is_backfilled);
        if ($reported != $before) {
            $reported->keep($order);
        }
    }

    /**
     * The last report of an order, which can't be stored with it any more.
     */
    private function report_deleted(WC_Order $order): void
    {
        $reported = Reported::of($order);
        if ($order->get_type() === 'shop_order' && $reported->is_known()) {
            $this->report_state($order, $reported, 'deleted');
        }
    }

    /**
     * @param string $reason trashed or deleted; empty for an existing order.
     */
    private function report_state(WC_Order $order, Reported $reported, string $reason, bool $is_backfilled = false): Reported
    {
        $payload = PurchasePayload::of($this->reader->purchase($order, $reason));
        $has_identifier = array_intersect_key($payload, array_flip(['user_id', 'email', 'session_id'])) !== [];
        if (! $has_identifier && ! $order->is_paid() && ! $reported->is_known()) {
            // A draft without a buyer, which staff is still editing.
            return $reported;
        }
        $digest = Reported::digest($payload);
        if ($reported->state === $digest) {
            return $reported;
        }
        $id = $reported->id_of($order, $digest);
        $payload['reported_at'] = Clean::time($this->clock->now());
        if ($is_backfilled && $this->is_past($order->get_date_created(), $order->get_date_paid())) {
            $payload['historical'] = true;
        }
        return $this->queue->add(new Message(Kind::Purchase, $id, ['id' => $id] + $payload)) ? $reported->with_state($digest) : $reported;
    }

    private function report_refund(
        WC_Order $order,
        WC_Order_Refund $refund,
        Reported $reported,
        bool $is_late,
        bool $is_backfilled,
    ): Reported {
        if (in_array($refund->get_id(), $reported->refunds, true)) {
            return $reported;
        }
        $facts = $this->reader->refund($order, $refund);
        if ($facts['amount'] === 0.0 && ! $is_late) {
            // With order tables, the amount may not be stored yet when the hook fires. Retried in a minute.
            if (! wp_next_scheduled(self::REPORT_AGAIN, [$order->get_id()])) {
                wp_schedule_single_event(time() + MINUTE_IN_SECONDS, self::REPORT_AGAIN, [$order->get_id()]);
            }
            return $reported;
        }
        if (! $reported->is_known()) {
            // An order from before this plugin: the mesh needs it before its refund.
            $reported = $this->report_state($order, $reported, '', $is_backfilled);
        }
        $is_historical = $is_backfilled && $this->is_past($refund->get_date_created());
        $payload = PurchasePayload::refund($facts + ['reported_at' => $this->clock->now(), 'historical' => $is_historical]);
        $is_added = $this->queue->add(new Message(Kind::Refund, "wc-refund-{$refund->get_id()}", $payload, (string) $order->get_id()));
        return $is_added ? $reported->with_refund($refund->get_id()) : $reported;
    }

    /**
     * Reports the deletion of refunds that were reported before.
     *
     * @param list<WC_Order_Refund> $refunds The existing refunds.
     */
    private function report_deleted_refunds(WC_Order $order, array $refunds, Reported $reported): Reported
    {
        $there = array_map(static fn (WC_Order_Refund $refund): int => $refund->get_id(), $refunds);
        foreach (array_diff($reported->refunds, $there) as $refund_id) {
            $now = $this->clock->now();
            $payload = PurchasePayload::refund([
                'reference' => (string) $refund_id,
                'refunded_total' => $this->reader->refunded_total($order),
                'timestamp' => $now,
                'reported_at' => $now,
                'deleted' => true,
                'source' => OrderReader::SOURCE,
            ]);
            if ($this->queue->add(new Message(Kind::Refund, "wc-refund-{$refund_id}-deleted", $payload, (string) $order->get_id()))) {
                $reported = $reported->without_refund($refund_id);
            }
        }
        return $reported;
    }

    /**
     * Whether all of these times are past, and not the present; missing ones are.
     */
    private function is_past(?DateTimeInterface ...$times): bool
    {
        $newest = max(array_map(static fn (?DateTimeInterface $time): int => $time?->getTimestamp() ?? 0, $times));
        return $newest < $this->clock->now() - self::PRESENT;
    }

    /**
     * An order as stored in the database: until version 8, WooCommerce returns a trashed order in its previous state.
     */
    private function stored_order(int $order_id): ?WC_Order
    {
        $order = $this->order($order_id);
        return $order === null ? null : new ($order::class)($order_id);
    }

    private function order(mixed $order_id): ?WC_Order
    {
        $order = is_numeric($order_id) ? wc_get_order((int) $order_id) : null;
        return $order instanceof WC_Order ? $order : null;
    }
}
