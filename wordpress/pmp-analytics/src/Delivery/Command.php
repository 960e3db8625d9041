<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Capture\Backfill;
use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WP_CLI;

/**
 * wp pmp: the work of WP-Cron, by hand or from a system cron.
 */
final class Command implements Registerable
{
    private const SECONDS = 300.0;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Drainer $drainer,
        private readonly Pause $pause,
        private readonly Backfill $backfill,
    ) {
    }

    public function register(): void
    {
        if (defined('WP_CLI') && constant('WP_CLI')) {
            WP_CLI::add_command('pmp drain', [$this, 'drain']);
            WP_CLI::add_command('pmp status', [$this, 'status']);
            WP_CLI::add_command('pmp backfill', [$this, 'backfill']);
        }
    }

    /**
     * Delivers waiting messages, for at most five minutes.
     */
    public function drain(): void
    {
        $this->drainer->drain(self::SECONDS);
        $this->status();
    }

    /**
     * Reports earlier orders, for as long as the mesh accepts them; WP-Cron, or the same command, continues.
     */
    public function backfill(): void
    {
        $this->backfill->start();
        do {
            $this->backfill->go_on(self::SECONDS);
            $this->drainer->drain(self::SECONDS);
        } while ($this->backfill->is_running() && $this->backfill->has_room());
        WP_CLI::log("orders reported: {$this->backfill->state()['told']}");
        if ($this->backfill->is_running()) {
            WP_CLI::warning('The mesh does not accept more orders now. WP-Cron will report the rest, or you can run this command again.');
        }
        $this->status();
    }

    /**
     * Shows the waiting messages and the last error.
     */
    public function status(): void
    {
        $state = $this->queue->state();
        WP_CLI::log("waiting: {$state->waiting}, the oldest for " . round($state->oldest_age) . ' s');
        WP_CLI::log("set aside: {$state->set_aside}");
        $reason = $this->pause->state()['reason'];
        if ($reason !== '') {
            WP_CLI::warning($reason);
        }
    }
}
