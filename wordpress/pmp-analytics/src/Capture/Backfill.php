<?php

declare(strict_types=1);

namespace PMP\Analytics\Capture;

use PMP\Analytics\Clock;
use PMP\Analytics\Delivery\Schedule;
use PMP\Analytics\Hook;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WC_Order;

/**
 * Reports sales from before the plugin was installed: paid orders and their refunds, the oldest first, with the ids that they
 * would have had at the time, so that nothing counts twice. They are marked as history, which never reaches advertisers or mail
 * automations.
 *
 * It continues every minute until it is complete, also after a crash. It pauses while many messages are waiting, so that current
 * events are not delayed by old ones.
 */
final class Backfill implements Registerable
{
    public const OPTION = 'pmp_analytics_backfill';

    private const BATCH = 50;

    private const ROOM = 1000;

    private const SECONDS = 10.0;

    private const NOTHING = ['is_running' => false, 'after' => 0, 'seen' => [], 'told' => 0, 'finished_at' => 0.0];

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Orders $orders,
        private readonly Clock $clock,
    ) {
    }

    public function register(): void
    {
        // After the delivery of the same minute, which empties the outbox.
        Hook::action(Schedule::HOOK, [$this, 'go_on'], 20, 0);
    }

    /**
     * Starts a backfill, unless one is running.
     */
    public function start(): void
    {
        if (! $this->is_running()) {
            $this->keep(['is_running' => true] + self::NOTHING);
        }
    }

    public function go_on(float $seconds = self::SECONDS): void
    {
        $deadline = $this->clock->now() + $seconds;
        while ($this->is_running() && $this->has_room() && $this->clock->now() < $deadline && function_exists('wc_get_orders')) {
            $this->report_batch();
        }
    }

    public function is_running(): bool
    {
        return $this->state()['is_running'];
    }

    public function has_room(): bool
    {
        return ! $this->queue->holds_more_than(self::ROOM);
    }

    /**
     * @return array{is_running: bool, after: int, seen: list<int>, told: int, finished_at: float} Progress: all orders created before
     *     the second `after`, and those `seen` of that second.
     */
    public function state(): array
    {
        return array_merge(self::NOTHING, (array) get_option(self::OPTION, []));
    }

    private function report_batch(): void
    {
        $state = $this->state();
        // By date, not by page: when an order is deleted, pages shift and an order would be skipped.
        $orders = wc_get_orders([
            'type' => 'shop_order',
            'limit' => self::BATCH,
            'orderby' => 'date',
            'order' => 'ASC',
            'exclude' => $state['seen'],
        ] + ($state['after'] > 0 ? ['date_created' => ">={$state['after']}"] : []));
        if ($orders === []) {
            $this->keep(['is_running' => false, 'seen' => [], 'finished_at' => $this->clock->now()] + $state);
            return;
        }
        foreach ($orders as $order) {
            if ($this->is_sold($order)) {
                Guard::attempt(fn () => $this->orders->report($order, true, true));
                ++$state['told'];
            }
            $second = (int) $order->get_date_created()?->getTimestamp();
            if ($second > $state['after']) {
                $state['after'] = $second;
                $state['seen'] = [];
            }
            $state['seen'][] = $order->get_id();
        }
        $this->keep($state);
    }

    /**
     * Whether the order was ever paid.
     */
    private function is_sold(WC_Order $order): bool
    {
        return $order->is_paid() || $order->get_date_paid() !== null || $order->get_refunds() !== [];
    }

    /**
     * @param array<string, mixed> $state
     */
    private function keep(array $state): void
    {
        update_option(self::OPTION, $state, false);
    }
}
