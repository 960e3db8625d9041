<?php

declare(strict_types=1);

namespace PMP\Analytics\Delivery;

use PMP\Analytics\Registerable;
use PMP_Event_Queue;
use WP_CLI;

/**
 * wp pmp: what cron does, by hand or by a real cron.
 */
final class Command implements Registerable
{
    private const SECONDS = 300.0;

    public function __construct(
        private readonly PMP_Event_Queue $queue,
        private readonly Drainer $drainer,
        private readonly Pause $pause,
    ) {
    }

    public function register(): void
    {
        if (defined('WP_CLI') && constant('WP_CLI')) {
            WP_CLI::add_command('pmp drain', [$this, 'drain']);
            WP_CLI::add_command('pmp status', [$this, 'status']);
        }
    }

    /**
     * Delivers what waits, for at most five minutes.
     */
    public function drain(): void
    {
        $this->drainer->drain(self::SECONDS);
        $this->status();
    }

    /**
     * Says what waits and why.
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
