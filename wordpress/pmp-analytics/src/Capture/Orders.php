<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Hook;
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
 * The mesh takes notices as facts that add up: the same one twice changes nothing. So an order is told again whenever
 * what is known of it has changed, and only then.
 *
 * Other plugins fire WooCommerce's hooks too, and not always with what WooCommerce passes: hence the wide types.
 */
final class Orders implements Registerable
{
    public const TELL_AGAIN = 'pmp_analytics_tell_order';

    /** What of the order was told: a digest for each status, and the refunds. */
    private const TOLD = '_pmp_told';

    /** Not placed yet, or thrown away: nobody's order. */
    private const UNPLACED = ['checkout-draft', 'auto-draft', 'draft', 'new', 'trash'];

    /** @var array<int, true> Orders that something happened to in this request. */
    private array $touched = [];

    public function __construct(private readonly PMP_Event_Queue $queue, private readonly OrderReader $reader)
    {
    }

    public function register(): void
    {
        Hook::action('woocommerce_checkout_create_order', [$this, 'remember_visit'], 20);
        Hook::action('woocommerce_store_api_checkout_update_order_meta', [$this, 'remember_visit'], 20);
        Hook::action('woocommerce_order_status_changed', [$this, 'status_changed'], 20, 4);
        Hook::action('woocommerce_order_refunded', [$this, 'refunded'], 20);
        Hook::action('woocommerce_new_order', [$this, 'touched'], 20);
        Hook::action('woocommerce_update_order', [$this, 'touched'], 20);
        Hook::action('shutdown', [$this, 'tell_touched'], 0);
        Hook::action(self::TELL_AGAIN, [$this, 'tell_late'], 10);
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

    public function tell_touched(): void
    {
        $touched = array_keys($this->touched);
        $this->touched = [];
        foreach ($touched as $order_id) {
            Guard::attempt(fn () => $this->tell($this->order($order_id)));
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
        if ($order->get_meta('_anonymized') === 'yes') {
            // WooCommerce erased its person: there is nothing to tell, and a made-up address would be somebody new.
            return;
        }
        $told = $before = $this->told($order);
        // Refunds first: a status of refunded without them would be booked without their numbers and dates.
        foreach ($order->get_refunds() as $refund) {
            $told = $this->tell_refund($order, $refund, $told, $is_late);
        }
        $told = $this->tell_state($order, $told);
        if ($told !== $before) {
            $order->update_meta_data(self::TOLD, $told);
            $order->save_meta_data();
        }
    }

    /**
     * @param array{states: array<string, string>, refunds: list<int>} $told
     * @return array{states: array<string, string>, refunds: list<int>}
     */
    private function tell_state(WC_Order $order, array $told): array
    {
        $payload = PurchasePayload::of($this->reader->purchase($order));
        if (array_intersect_key($payload, array_flip(['user_id', 'email', 'session_id'])) === []) {
            if (! $order->is_paid()) {
                // Nobody's yet: staff is still writing it.
                return $told;
            }
            // Sold over the counter. The mesh wants a buyer, and money counts whoever paid it.
            $payload['session_id'] = "wc-order-{$order->get_id()}";
        }
        // Refunds have notices of their own.
        $digest = substr(hash('sha256', (string) wp_json_encode(['refunded_total' => 0] + $payload)), 0, 16);
        $status = $order->get_status();
        if (($told['states'][$status] ?? '') === $digest) {
            return $told;
        }
        $id = "wc-order-{$order->get_id()}-{$status}-{$digest}";
        if ($this->queue->add(new Message(Kind::Purchase, $id, ['id' => $id] + $payload))) {
            $told['states'][$status] = $digest;
        }
        return $told;
    }

    /**
     * @param array{states: array<string, string>, refunds: list<int>} $told
     * @return array{states: array<string, string>, refunds: list<int>}
     */
    private function tell_refund(WC_Order $order, WC_Order_Refund $refund, array $told, bool $is_late): array
    {
        if (in_array($refund->get_id(), $told['refunds'], true)) {
            return $told;
        }
        $facts = $this->reader->refund($order, $refund);
        if ($facts['amount'] === 0.0 && ! $is_late) {
            // Seen with order tables of their own: the amount is not there yet when the hook fires. Read again in a minute.
            if (! wp_next_scheduled(self::TELL_AGAIN, [$order->get_id()])) {
                wp_schedule_single_event(time() + MINUTE_IN_SECONDS, self::TELL_AGAIN, [$order->get_id()]);
            }
            return $told;
        }
        if ($told['states'] === []) {
            // An order from before this plugin: the mesh has to know what is paid back.
            $told = $this->tell_state($order, $told);
        }
        $id = "wc-refund-{$refund->get_id()}";
        if ($this->queue->add(new Message(Kind::Refund, $id, PurchasePayload::refund($facts), (string) $order->get_id()))) {
            $told['refunds'][] = $refund->get_id();
        }
        return $told;
    }

    /**
     * @return array{states: array<string, string>, refunds: list<int>}
     */
    private function told(WC_Order $order): array
    {
        $told = $order->get_meta(self::TOLD);
        return (is_array($told) ? $told : []) + ['states' => [], 'refunds' => []];
    }

    private function order(mixed $order_id): ?WC_Order
    {
        $order = is_numeric($order_id) ? wc_get_order((int) $order_id) : null;
        return $order instanceof WC_Order ? $order : null;
    }
}
