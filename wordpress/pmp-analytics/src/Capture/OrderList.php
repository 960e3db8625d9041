<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Payload\Clean;
use PMP\Analytics\Payload\PurchasePayload;
use WC_Order;
use WC_Order_Refund;

/**
 * The shop's orders as the mesh compares them with its ledger. It reads only: neither an order nor what was reported of it changes.
 */
final class OrderList
{
    private const BATCH = 100;

    private const MONEY = [
        ...['order_id', 'timestamp', 'amount', 'currency', 'payment_method', 'payment_status'],
        ...['paid_at', 'refunded_total', 'reason', 'reported_at'],
    ];

    public function __construct(private readonly OrderReader $reader, private readonly Clock $clock)
    {
    }

    /**
     * What the orders of a period amount to, the oldest first, those in the trash included.
     *
     * A page continues where the one before ended by date, not by number: when an order is deleted, pages shift.
     *
     * @param int       $after Orders created in this second or later, in seconds since 1970; 0 for all.
     * @param list<int> $seen  Ids of the orders of that second that were read before.
     * @param int       $until Orders created before this second.
     * @param float     $deadline When to stop, in seconds since 1970.
     * @return array{orders: list<array<string, mixed>>, next: array{after: int, seen: list<int>}|null} `next` is null at the end.
     */
    public function page(int $after, array $seen, int $until, float $deadline): array
    {
        $orders = wc_get_orders([
            'type' => 'shop_order',
            'status' => [...array_keys(wc_get_order_statuses()), 'trash'],
            'limit' => self::BATCH,
            'orderby' => 'date',
            'order' => 'ASC',
            'exclude' => $seen,
            'date_created' => ">={$after}",
        ]);
        $read = [];
        $is_complete = count($orders) < self::BATCH;
        foreach ($orders as $order) {
            $second = (int) $order->get_date_created()?->getTimestamp();
            if ($second >= $until) {
                return ['orders' => $read, 'next' => null];
            }
            if ($read !== [] && $this->clock->now() >= $deadline) {
                $is_complete = false;
                break;
            }
            if ($second > $after) {
                $after = $second;
                $seen = [];
            }
            $seen[] = $order->get_id();
            if ($order instanceof WC_Order && Orders::is_placed($order)) {
                $read[] = $this->money($order);
            }
        }
        return ['orders' => $read, 'next' => $is_complete ? null : ['after' => $after, 'seen' => $seen]];
    }

    /**
     * An order's reports as they would be sent now: its refunds, and the order itself; null if there is no such order.
     *
     * @return array{order_id: string, purchase: array<string, mixed>, refunds: list<array<string, mixed>>}|null
     */
    public function reports(int $order_id): ?array
    {
        $order = $order_id > 0 ? wc_get_order($order_id) : false;
        if (! $order instanceof WC_Order || ! Orders::is_placed($order)) {
            return null;
        }
        $now = $this->clock->now();
        $refunds = array_map(
            fn (WC_Order_Refund $each): array => PurchasePayload::refund($this->reader->refund($order, $each) + ['reported_at' => $now]),
            $this->reader->refunds($order),
        );
        $payload = PurchasePayload::of($this->reader->purchase($order, self::reason($order)));
        $id = Reported::of($order)->id_of($order, Reported::digest($payload));
        $purchase = ['id' => $id] + $payload + ['reported_at' => Clean::time($now)];
        return ['order_id' => (string) $order_id, 'purchase' => $purchase, 'refunds' => $refunds];
    }

    /**
     * @return array<string, mixed>
     */
    private function money(WC_Order $order): array
    {
        $payload = PurchasePayload::of($this->reader->money($order, self::reason($order)) + ['reported_at' => $this->clock->now()]);
        return array_intersect_key($payload, array_flip(self::MONEY));
    }

    private static function reason(WC_Order $order): string
    {
        return $order->get_status() === 'trash' ? 'trashed' : '';
    }
}
