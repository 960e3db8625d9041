<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use WC_Order;

/**
 * The reports of an order so far: stored with the order, so that they move with it.
 */
final class Reported
{
    public const META = '_pmp_told';

    /**
     * @param string    $state   Digest of the newest report; empty without any.
     * @param int       $count   Number of reports.
     * @param list<int> $refunds Refunds that were reported and still exist.
     */
    private function __construct(public readonly string $state, public readonly int $count, public readonly array $refunds)
    {
    }

    public static function of(WC_Order $order): self
    {
        $kept = $order->get_meta(self::META);
        $kept = is_array($kept) ? $kept : [];
        // Before version 0.1 each status had its own digest.
        $states = is_array($kept['states'] ?? null) ? $kept['states'] : [];
        return new self(
            is_string($kept['state'] ?? null) ? $kept['state'] : '',
            is_int($kept['count'] ?? null) ? $kept['count'] : count($states),
            array_values(array_filter((array) ($kept['refunds'] ?? []), is_int(...))),
        );
    }

    /**
     * Digest of a report, which is the same as long as nothing has changed.
     *
     * @param array<string, mixed> $payload
     */
    public static function digest(array $payload): string
    {
        // Refunds are reported separately.
        return substr(hash('sha256', (string) wp_json_encode(['refunded_total' => 0] + $payload)), 0, 16);
    }

    /**
     * The id of an order's report with this digest: that of the newest report if it has the same.
     */
    public function id_of(WC_Order $order, string $digest): string
    {
        $number = $this->count + ($digest === $this->state ? 0 : 1);
        return "wc-order-{$order->get_id()}-{$number}-{$digest}";
    }

    public function is_known(): bool
    {
        return $this->count > 0;
    }

    public function with_state(string $digest): self
    {
        return new self($digest, $this->count + 1, $this->refunds);
    }

    public function with_refund(int $refund_id): self
    {
        return new self($this->state, $this->count, [...$this->refunds, $refund_id]);
    }

    public function without_refund(int $refund_id): self
    {
        return new self($this->state, $this->count, array_values(array_diff($this->refunds, [$refund_id])));
    }

    public function keep(WC_Order $order): void
    {
        $order->update_meta_data(self::META, ['state' => $this->state, 'count' => $this->count, 'refunds' => $this->refunds]);
        $order->save_meta_data();
    }
}
