<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

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
 * Orders and refunds, by what happens to them and never by which page somebody sees: classic and block checkout, staff,
 * REST and payment providers all pass here, and a reloaded thank-you page does not.
 *
 * An order is reported whole, as it stands, whenever that has changed, and only then: the mesh counts the newest report. One that
 * is trashed, deleted or cancelled is reported, too, and so is a refund that is not there any more.
 *
 * Other plugins fire WooCommerce's hooks too, and not always with what WooCommerce passes: hence the wide types.
 */
final class Orders implements Registerable
{
    public const TELL_AGAIN = 'pmp_analytics_tell_order';

    /** Not placed yet: nobody's order. */
    private const UNPLACED = ['checkout-draft', 'auto-draft', 'draft', 'new'];

    /** @var array<int, true> Orders that something happened to in this request. */
    private array $touched = [];

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly OrderReader $reader,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        Hook::action('woocommerce_checkout_create_order', [$this, 'remember_visit'], 20);
        Hook::action('woocommerce_store_api_checkout_update_order_meta', [$this, 'remember_visit'], 20);
        Hook::action('woocommerce_order_status_changed', [$this, 'status_changed'], 20, 4);
        Hook::action('woocommerce_order_refunded', [$this, 'refunded'], 20);
        foreach (['new', 'update', 'trash', 'untrash'] as $what) {
            Hook::action("woocommerce_{$what}_order", [$this, 'touched'], 20);
        }
        Hook::action('woocommerce_refund_deleted', [$this, 'refund_deleted'], 20, 2);
        // Only wp-admin says the above. The data store says nothing with order tables; before WooCommerce 8.1, REST alone does.
        Hook::filter('woocommerce_pre_delete_order_refund', [$this, 'refund_goes'], 20, 2);
        Hook::action('woocommerce_rest_delete_shop_order_refund_object', [$this, 'refund_gone'], 20);
        Hook::action('woocommerce_before_delete_order', [$this, 'deleted'], 20, 2);
        // Where orders are posts, wp-admin's lists trash and delete them without a word from WooCommerce.
        Hook::action('trashed_post', [$this, 'post_touched'], 20);
        Hook::action('untrashed_post', [$this, 'post_touched'], 20);
        Hook::action('before_delete_post', [$this, 'post_deleted'], 20);
        Hook::action('shutdown', [$this, 'tell_touched'], 0);
        Hook::action(self::TELL_AGAIN, [$this, 'tell_late'], 10);
        foreach (['subscription', 'renewal_order', 'resubscribe_order'] as $copy) {
            Hook::filter("wc_subscriptions_{$copy}_data", [$this->reader, 'without_ours'], 20);
        }
    }

    public function remember_visit(mixed $order): void
    {
        $visit = Visit::current();
        if (! $order instanceof WC_Order || ! Consent::is_given($visit)) {
            return;
        }
        $this->reader->remember($order, $visit);
        if ($order->get_id() > 0) {
            // The block checkout's order is in the database already; the classic one is saved by whoever made it.
            $order->save_meta_data();
        }
    }

    /**
     * Told at once: a payment provider's notice may be all that this request is.
     */
    public function status_changed(mixed $order_id, mixed $from = '', mixed $to = '', mixed $order = null): void
    {
        $this->tell($order instanceof WC_Order ? $order : $this->order($order_id));
    }

    public function refunded(mixed $order_id): void
    {
        $this->tell($this->order($order_id));
    }

    /**
     * An order is saved many times in a request, and new ones have no total yet. What it has come to shows at the end.
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
     * @param mixed $answer Null, or what another plugin answers instead of deleting it.
     */
    public function refund_goes(mixed $answer, mixed $refund = null): mixed
    {
        $this->refund_gone($refund);
        return $answer;
    }

    public function refund_gone(mixed $refund): void
    {
        if ($refund instanceof WC_Order_Refund) {
            $this->touched($refund->get_parent_id());
        }
    }

    public function deleted(mixed $order_id, mixed $order = null): void
    {
        if ($order instanceof WC_Order) {
            $this->tell_deleted($order);
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

    public function tell_touched(): void
    {
        $touched = array_keys($this->touched);
        $this->touched = [];
        foreach ($touched as $order_id) {
            Guard::attempt(fn () => $this->tell($this->stored_order($order_id)));
        }
    }

    public function tell_late(mixed $order_id): void
    {
        $this->tell($this->order($order_id), true);
    }

    /**
     * @param bool $is_late Nothing more is to be waited for.
     */
    public function tell(?WC_Order $order, bool $is_late = false): void
    {
        if ($order?->get_type() !== 'shop_order' || $order->get_id() === 0 || in_array($order->get_status(), self::UNPLACED, true)) {
            return;
        }
        $before = Reported::of($order);
        if ($order->get_status() === 'trash' && ! $before->is_known()) {
            return;
        }
        // Refunds first: a status of refunded without them would be booked without their numbers and dates.
        $refunds = $this->reader->refunds($order);
        $reported = $this->tell_deleted_refunds($order, $refunds, $before);
        foreach ($refunds as $refund) {
            $reported = $this->tell_refund($order, $refund, $reported, $is_late);
        }
        $reported = $this->tell_state($order, $reported, $order->get_status() === 'trash' ? 'trashed' : '');
        if ($reported != $before) {
            $reported->keep($order);
        }
    }

    /**
     * The last that is heard of an order: there is nothing left to keep a note on.
     */
    private function tell_deleted(WC_Order $order): void
    {
        $reported = Reported::of($order);
        if ($order->get_type() === 'shop_order' && $reported->is_known()) {
            $this->tell_state($order, $reported, 'deleted');
        }
    }

    /**
     * @param string $reason Why it is no order any more; empty while it is one.
     */
    private function tell_state(WC_Order $order, Reported $reported, string $reason): Reported
    {
        $payload = PurchasePayload::of($this->reader->purchase($order, $reason));
        $is_somebodys = array_intersect_key($payload, array_flip(['user_id', 'email', 'session_id'])) !== [];
        if (! $is_somebodys && ! $order->is_paid() && ! $reported->is_known()) {
            // Nobody's yet: staff is still writing it.
            return $reported;
        }
        // Refunds have reports of their own.
        $digest = substr(hash('sha256', (string) wp_json_encode(['refunded_total' => 0] + $payload)), 0, 16);
        if ($reported->state === $digest) {
            return $reported;
        }
        $id = "wc-order-{$order->get_id()}-" . ($reported->count + 1) . "-{$digest}";
        $payload['reported_at'] = Clean::time($this->clock->now());
        return $this->queue->add(new Message(Kind::Purchase, $id, ['id' => $id] + $payload)) ? $reported->with_state($digest) : $reported;
    }

    private function tell_refund(WC_Order $order, WC_Order_Refund $refund, Reported $reported, bool $is_late): Reported
    {
        if (in_array($refund->get_id(), $reported->refunds, true)) {
            return $reported;
        }
        $facts = $this->reader->refund($order, $refund);
        if ($facts['amount'] === 0.0 && ! $is_late) {
            // Seen with order tables of their own: the amount is not there yet when the hook fires. Read again in a minute.
            if (! wp_next_scheduled(self::TELL_AGAIN, [$order->get_id()])) {
                wp_schedule_single_event(time() + MINUTE_IN_SECONDS, self::TELL_AGAIN, [$order->get_id()]);
            }
            return $reported;
        }
        if (! $reported->is_known()) {
            // An order from before this plugin: the mesh has to know what is paid back.
            $reported = $this->tell_state($order, $reported, '');
        }
        $payload = PurchasePayload::refund($facts + ['reported_at' => $this->clock->now()]);
        $is_added = $this->queue->add(new Message(Kind::Refund, "wc-refund-{$refund->get_id()}", $payload, (string) $order->get_id()));
        return $is_added ? $reported->with_refund($refund->get_id()) : $reported;
    }

    /**
     * Refunds that were reported and are not there any more, by whatever way they went.
     *
     * @param list<WC_Order_Refund> $refunds Those that are.
     */
    private function tell_deleted_refunds(WC_Order $order, array $refunds, Reported $reported): Reported
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
     * An order as it is in the database: until version 8, WooCommerce gives out one that was trashed as it was before.
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
